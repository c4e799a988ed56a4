"""Who is asked when: everybody once a round, and nobody always after the same other one."""

from types import SimpleNamespace

from contestants import take_turns


def test_everybody_has_one_turn_a_round_in_orders_that_differ_and_are_always_the_same():
    def asked_by(rounds):
        asked = []

        def contestant(key):
            def ask(request):
                asked.append(key)
                return {"ms": [1.0], "seconds": 1.0, "peak_gib": 1.0, "device_gib": 0.0}

            return SimpleNamespace(kind=SimpleNamespace(key=key), ask=ask)

        series = take_turns([contestant(key) for key in "abc"], {"count": 1}, rounds)
        assert {key: len(found.turns) for key, found in series.items()} == dict.fromkeys("abc", 8)
        return ["".join(asked[i : i + 3]) for i in range(0, len(asked), 3)]

    rounds = asked_by(8)
    assert rounds[0] == "abc"  # the first requests, which are not timed, compile
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 3
    assert asked_by(8) == rounds

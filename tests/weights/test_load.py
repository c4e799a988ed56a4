"""Loading is total and loud: every leaf and every tensor is accounted for."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras_networks import exported

from msa_flax.weights import KERAS_FAMILIES
from msa_flax.weights.keras_file import WeightsError, tensors_hash
from msa_flax.weights.load import WeightsReport, load

RULES = KERAS_FAMILIES["mobilenet_v1"].rules
LAYERS = {"conv1": (3, 3, 3, 8), "conv_dw_1": (3, 3, 1, 8), "conv_pw_1": (1, 1, 8, 16)}


def random_variables(seed):
    """A network of one stem and one block with attention and classifier, all numbers different."""
    rng = np.random.default_rng(seed)

    def leaf(*shape):
        return rng.normal(size=shape).astype(np.float32)

    params, stats = {}, {}
    for name, shape in LAYERS.items():
        channels = shape[-1]
        params[name] = {"kernel": leaf(*shape)}
        params[f"{name}_bn"] = {"scale": leaf(channels), "bias": leaf(channels)}
        stats[f"{name}_bn"] = {"mean": leaf(channels), "var": leaf(channels) ** 2}
    return {
        "params": {
            "backbone": params,
            "attention": {"conv_3": {"kernel": leaf(3, 3, 2, 1), "bias": leaf(1)}},
            "classifier": {"logit": {"kernel": leaf(16, 1), "bias": leaf(1)}},
        },
        "batch_stats": {"backbone": stats},
    }


OURS = ("attention", "classifier")  # the parts that no Keras file holds


def flat(tree, prefix=""):
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for key, sub in tree.items() for k, v in flat(sub, f"{prefix}/{key}").items()}


def assert_trees_equal(a, b):
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    for path, leaf in a.items():
        np.testing.assert_array_equal(leaf, b[path], err_msg=path)


@pytest.fixture
def arrays():
    return exported(random_variables(1), RULES)


def test_what_is_loaded_is_what_the_file_was_made_of(arrays):
    source, target = random_variables(1), random_variables(2)
    loaded, _ = load(target, arrays, RULES, initial=OURS)
    expected = copy.deepcopy(source)
    for part in OURS:
        expected["params"][part] = target["params"][part]
    assert_trees_equal(loaded, expected)


def test_what_is_loaded_gives_the_same_file_again(arrays):
    loaded, _ = load(random_variables(2), arrays, RULES, initial=OURS)
    assert tensors_hash(exported(loaded, RULES)) == tensors_hash(arrays)


def test_tensors_arrive_where_the_layout_puts_them(arrays):
    loaded, _ = load(random_variables(2), arrays, RULES, initial=OURS)
    backbone, stats = loaded["params"]["backbone"], loaded["batch_stats"]["backbone"]
    depthwise = arrays["conv_dw_1/kernel"]
    assert depthwise.shape == (3, 3, 8, 1)
    assert backbone["conv_dw_1"]["kernel"][0, 2, 0, 5] == depthwise[0, 2, 5, 0]
    np.testing.assert_array_equal(backbone["conv1_bn"]["scale"], arrays["conv1_bn/gamma"])
    np.testing.assert_array_equal(backbone["conv1_bn"]["bias"], arrays["conv1_bn/beta"])
    np.testing.assert_array_equal(stats["conv1_bn"]["mean"], arrays["conv1_bn/moving_mean"])
    np.testing.assert_array_equal(stats["conv1_bn"]["var"], arrays["conv1_bn/moving_variance"])


def test_the_report_says_what_happened(arrays):
    extra = {"conv_preds/bias": np.zeros(3), "conv_preds/kernel": np.zeros((1, 1, 16, 3))}
    _, report = load(
        random_variables(2),
        arrays | extra,
        RULES,
        initial=OURS,
        ignore=("conv_preds",),
        source="a.h5",
    )
    # three kernels and three BatchNorms of 8, 8 and 16 channels with four vectors each
    assert report == WeightsReport(
        tensors=3 + 12,
        parameters=3 * 3 * 3 * 8 + 3 * 3 * 8 + 8 * 16 + 4 * (8 + 8 + 16),
        hash=tensors_hash(arrays | extra),
        loaded_hash=tensors_hash(arrays),
        kept_initial=(
            "params/attention/conv_3/kernel",
            "params/attention/conv_3/bias",
            "params/classifier/logit/kernel",
            "params/classifier/logit/bias",
        ),
        ignored=("conv_preds/bias", "conv_preds/kernel"),
        source="a.h5",
    )
    as_json = json.loads(json.dumps(report.to_dict()))
    assert as_json == report.to_dict()
    assert as_json["ignored"] == ["conv_preds/bias", "conv_preds/kernel"]


def renamed(arrays):
    arrays["conv1_bn/gama"] = arrays.pop("conv1_bn/gamma")


def missing(arrays):
    del arrays["conv_pw_1/kernel"]


def extra(arrays):
    arrays["conv_dw_99/kernel"] = np.zeros((3, 3, 8, 1))


def misshaped(arrays):
    arrays["conv1/kernel"] = arrays["conv1/kernel"][..., :7]


def other_rank(arrays):
    arrays["conv_dw_1/kernel"] = arrays["conv_dw_1/kernel"].reshape(-1)


def our_layout(arrays):
    arrays["conv_dw_1/kernel"] = np.swapaxes(arrays["conv_dw_1/kernel"], 2, 3)


def not_finite(arrays):
    arrays["conv_pw_1_bn/moving_variance"][[2, 5]] = np.nan, np.inf


MUTATIONS = {
    renamed: ("missing: conv1_bn/gamma (for params/", "unexpected: conv1_bn/gama"),
    missing: ("missing: conv_pw_1/kernel (for params/backbone/conv_pw_1/kernel)",),
    extra: ("unexpected: conv_dw_99/kernel",),
    misshaped: ("conv1/kernel: expected shape (3, 3, 3, 8), found (3, 3, 3, 7)",),
    other_rank: ("conv_dw_1/kernel: expected shape (3, 3, 8, 1), found (72,)",),
    our_layout: ("conv_dw_1/kernel: expected shape (3, 3, 8, 1), found (3, 3, 1, 8)",),
    not_finite: ("conv_pw_1_bn/moving_variance: 2 of 16 values are not finite",),
}


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_tensors_that_do_not_fit_are_refused(arrays, mutate):
    mutate(arrays)
    with pytest.raises(WeightsError) as error:
        load(random_variables(2), arrays, RULES, initial=OURS, source="a.h5")
    assert str(error.value).startswith("the weights of a.h5 do not fit the model; ")
    for message in MUTATIONS[mutate]:
        assert message in str(error.value)


def test_everything_wrong_is_reported_together(arrays):
    for mutate in (renamed, missing, extra, misshaped, our_layout, not_finite):
        mutate(arrays)
    with pytest.raises(WeightsError) as error:
        load(random_variables(2), arrays, RULES, initial=("attention",))
    message = str(error.value)
    assert "missing: conv1_bn/gamma (for params/backbone/conv1_bn/scale), conv_pw_1/ke" in message
    assert "unexpected: conv1_bn/gama, conv_dw_99/kernel;" in message
    for mutate in (misshaped, our_layout, not_finite):
        assert MUTATIONS[mutate][0] in message
    assert "no rule names: params/classifier/logit/bias, params/classifier/logit/kernel" in message
    assert "\n" not in message


def test_a_file_with_nothing_in_it_lists_every_missing_tensor(arrays):
    with pytest.raises(WeightsError) as error:
        load(random_variables(2), {}, RULES, initial=OURS)
    assert all(name in str(error.value) for name in arrays)


@pytest.mark.parametrize("initial", [("attention", "class"), ("attention", "classifier/log"), ()])
def test_a_beginning_of_a_path_ends_at_a_component(arrays, initial):
    with pytest.raises(WeightsError, match="params/classifier/logit/kernel"):
        load(random_variables(2), arrays, RULES, initial=initial)


def test_what_is_kept_is_not_filled_even_if_the_file_has_it(arrays):
    keep = (*OURS, "backbone/conv1")
    with pytest.raises(WeightsError, match=r"unexpected: conv1/kernel$"):
        load(random_variables(2), arrays, RULES, initial=keep)
    target = random_variables(2)
    loaded, report = load(target, arrays, RULES, initial=keep, ignore=("conv1/kernel",))
    kernel = target["params"]["backbone"]["conv1"]["kernel"]
    np.testing.assert_array_equal(loaded["params"]["backbone"]["conv1"]["kernel"], kernel)
    assert report.ignored == ("conv1/kernel",)


def test_ignoring_a_tensor_does_not_take_it_from_a_leaf_that_needs_it(arrays):
    _, report = load(random_variables(2), arrays, RULES, initial=OURS, ignore=("conv1",))
    assert report.ignored == ()
    assert report.tensors == len(arrays)


def test_two_leaves_never_share_a_tensor(arrays):
    greedy = RULES[0]._replace(keras="conv1/kernel")  # of conv1 and of the pointwise layers
    with pytest.raises(WeightsError, match="no rule names: params/backbone/conv_pw_1/kernel"):
        load(random_variables(2), arrays, (greedy, *RULES[1:]), initial=OURS)


def test_nothing_given_is_changed_or_shared(arrays):
    target = random_variables(2)
    loaded, _ = load(target, arrays, RULES, initial=OURS)
    assert_trees_equal(target, random_variables(2))
    backbone = loaded["params"]["backbone"]
    for layer, leaf, name in [
        ("conv1", "kernel", "conv1/kernel"),
        ("conv_dw_1", "kernel", "conv_dw_1/kernel"),
        ("conv1_bn", "scale", "conv1_bn/gamma"),
    ]:
        assert not np.shares_memory(backbone[layer][leaf], arrays[name])
        assert backbone[layer][leaf].dtype == np.float32


def test_other_collections_pass_through(arrays):
    tree = random_variables(2) | {"intermediates": {"map": np.ones(3)}}
    loaded, _ = load(tree, arrays, RULES, initial=OURS)
    assert loaded["intermediates"] is tree["intermediates"]


NAMES = sorted(exported(random_variables(1), RULES))
CHANGES = {
    "missing": lambda arrays, name: arrays.pop(name),
    "renamed": lambda arrays, name: arrays.update({f"{name}_other": arrays.pop(name)}),
    "another shape": lambda arrays, name: arrays.update({name: arrays[name][None]}),
    "not finite": lambda arrays, name: arrays.update({name: arrays[name] * np.nan}),
}


@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(sorted(CHANGES)), min_size=1))
def test_every_tensor_with_something_wrong_is_named(wrong):
    arrays = exported(random_variables(1), RULES)
    for name, change in wrong.items():
        CHANGES[change](arrays, name)
    with pytest.raises(WeightsError) as caught:
        load(random_variables(2), arrays, RULES, initial=OURS)
    assert all(name in str(caught.value) for name in wrong)

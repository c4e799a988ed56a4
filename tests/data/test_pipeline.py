import resource
import sys

import numpy as np
import pytest

from msa_flax.data.augment import draw_transform, warp
from msa_flax.data.pipeline import hide_gpu, steps_per_epoch, tf, train_dispatches


def dispatches_of_epoch(n=37, *, batch_size=8, steps_per_dispatch=3, seed=5, epoch=0, start_step=0):
    images = np.arange(n, dtype=np.uint8)[:, None, None] * np.ones((2, 2), np.uint8)
    labels = (np.arange(n) % 3 == 0).astype(np.int8)
    return list(
        train_dispatches(
            images,
            labels,
            batch_size=batch_size,
            steps_per_dispatch=steps_per_dispatch,
            seed=seed,
            epoch=epoch,
            start_step=start_step,
        )
    )


def real_steps(dispatches, name):
    """Returns one field of the real steps, [steps, b, ...]."""
    return np.concatenate([batch[name][:real] for batch, real in dispatches])


CASES = [(37, 8, 3), (40, 8, 5), (3, 8, 2), (1, 4, 1), (16, 16, 1), (17, 16, 8), (5, 2, 100)]


@pytest.mark.parametrize(("n", "batch_size", "k"), CASES)
def test_every_example_counts_once_an_epoch(n, batch_size, k):
    found = dispatches_of_epoch(n, batch_size=batch_size, steps_per_dispatch=k)
    index, weight = (real_steps(found, name).ravel() for name in ("index", "weight"))
    assert len(index) == steps_per_epoch(n, batch_size) * batch_size
    assert np.array_equal(np.bincount(index, weights=weight), np.ones(n))
    assert set(np.unique(weight)) <= {0.0, 1.0}
    total = sum(batch["weight"].sum() for batch, _ in found)
    assert total == n  # also where the steps that fill up the last dispatch are counted


@pytest.mark.parametrize(("n", "batch_size", "k"), CASES)
def test_every_dispatch_has_the_declared_shapes_and_types(n, batch_size, k):
    found = dispatches_of_epoch(n, batch_size=batch_size, steps_per_dispatch=k)
    assert len(found) == -(-steps_per_epoch(n, batch_size) // k)
    for batch, real in found:
        assert 1 <= real <= k
        assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
            "image": ((k, batch_size, 2, 2), "uint8"),
            "label": ((k, batch_size), "float32"),
            "weight": ((k, batch_size), "float32"),
            "index": ((k, batch_size), "int32"),
        }


def test_images_and_labels_belong_to_their_index():
    for batch, _ in dispatches_of_epoch():
        assert np.array_equal(batch["image"][..., 0, 0], batch["index"])
        assert np.array_equal(batch["label"], batch["index"] % 3 == 0)


@pytest.mark.parametrize("start", range(6))
def test_an_epoch_continued_at_any_step_is_the_rest_of_it(start):
    whole, rest = dispatches_of_epoch(), dispatches_of_epoch(start_step=start)
    for name in ("image", "label", "weight", "index"):
        if start == 5:
            assert rest == []
        else:
            assert np.array_equal(real_steps(rest, name), real_steps(whole, name)[start:])


def test_the_last_batch_is_filled_up_with_the_first_images_of_the_order():
    index, weight = (real_steps(dispatches_of_epoch(), name) for name in ("index", "weight"))
    assert weight[-1].tolist() == [1.0] * 5 + [0.0] * 3
    assert index[-1, 5:].tolist() == index[0, :3].tolist()


def test_fewer_images_than_a_batch_are_repeated_at_weight_zero():
    index, weight = (real_steps(dispatches_of_epoch(3), name) for name in ("index", "weight"))
    assert index[0].tolist() == [*index[0, :3], *index[0, :3], *index[0, :2]]
    assert weight[0].tolist() == [1.0] * 3 + [0.0] * 5


def test_steps_that_fill_up_a_dispatch_have_weight_zero_and_real_images():
    batch, real = dispatches_of_epoch()[-1]  # 5 steps in dispatches of 3
    assert real == 2
    assert batch["weight"][2].tolist() == [0.0] * 8
    assert np.array_equal(batch["image"][2, :, 0, 0], batch["index"][2])


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = [
        real_steps(dispatches_of_epoch(seed=seed, epoch=number), "index").tobytes()
        for seed in (5, 6)
        for number in (0, 1, 2)
    ]
    assert len(set(orders)) == 6
    assert real_steps(dispatches_of_epoch(seed=6, epoch=1), "index").tobytes() == orders[4]


def test_the_order_does_not_depend_on_how_steps_are_dispatched():
    one, many = (real_steps(dispatches_of_epoch(steps_per_dispatch=k), "index") for k in (1, 4))
    assert np.array_equal(one, many)


PICTURES = np.random.default_rng(0).integers(0, 256, (37, 24, 24), dtype=np.uint8)


def dispatches_of_pictures(*, seed=5, epoch=0, start_step=0, steps_per_dispatch=3, **options):
    return list(
        train_dispatches(
            PICTURES,
            np.arange(37) % 2,
            batch_size=8,
            steps_per_dispatch=steps_per_dispatch,
            seed=seed,
            epoch=epoch,
            start_step=start_step,
            **options,
        )
    )


def image_of_each_row(dispatches):
    """Returns the image of every row, after checking that a row always looks the same."""
    index, image = (real_steps(dispatches, name) for name in ("index", "image"))
    found = {}
    for row, picture in zip(index.ravel().tolist(), image.reshape(-1, 24, 24), strict=True):
        assert np.array_equal(found.setdefault(row, picture), picture)
    return np.stack([found[row] for row in sorted(found)])


@pytest.mark.parametrize("options", [{}, {"augment": False}])
def test_without_augmentation_images_are_the_data_sets_own_bit_for_bit(options):
    for batch, _ in dispatches_of_pictures(**options):
        assert np.array_equal(batch["image"], PICTURES[batch["index"]])


def test_augmentation_changes_images_and_nothing_else():
    plain, changed = (dispatches_of_pictures(augment=value) for value in (False, True))
    for (a, real_a), (b, real_b) in zip(plain, changed, strict=True):
        assert real_a == real_b
        for name in ("label", "weight", "index"):
            assert np.array_equal(a[name], b[name])
        assert (b["image"].dtype, b["image"].shape) == (a["image"].dtype, a["image"].shape)
    assert not np.array_equal(image_of_each_row(plain), image_of_each_row(changed))


def test_augmented_images_are_those_made_by_hand_from_seed_epoch_and_row():
    for batch, _ in dispatches_of_pictures(augment=True, epoch=2):
        for place in np.ndindex(batch["index"].shape):
            row = int(batch["index"][place])
            by_hand = warp(PICTURES[row], draw_transform((5, 2, row)))
            assert np.array_equal(batch["image"][place], by_hand)


@pytest.mark.parametrize("start", [1, 2, 4])
def test_an_augmented_epoch_continued_at_any_step_is_the_rest_of_it(start):
    whole, rest = (
        dispatches_of_pictures(augment=True),
        dispatches_of_pictures(augment=True, start_step=start),
    )
    assert np.array_equal(real_steps(rest, "image"), real_steps(whole, "image")[start:])


def test_augmented_images_do_not_depend_on_how_steps_are_dispatched():
    one, many = (dispatches_of_pictures(augment=True, steps_per_dispatch=k) for k in (1, 5))
    assert np.array_equal(real_steps(one, "image"), real_steps(many, "image"))


def test_the_last_batch_is_filled_up_with_the_same_augmented_images():
    found = dispatches_of_pictures(augment=True)
    image, weight = (real_steps(found, name) for name in ("image", "weight"))
    assert weight[-1].tolist() == [1.0] * 5 + [0.0] * 3
    assert np.array_equal(image[-1, 5:], image[0, :3])


def test_epochs_and_seeds_augment_every_image_differently():
    found = [
        image_of_each_row(dispatches_of_pictures(augment=True, seed=seed, epoch=number))
        for seed in (5, 6)
        for number in (0, 1)
    ]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert (one != other).any(axis=(1, 2)).all()


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_the_images_are_not_copied_as_a_whole():
    images = np.ones((600, 512, 512), np.uint8)  # 150 MiB, written to, so resident
    labels = np.zeros(len(images), np.int8)

    def peak_after(n):
        options = {"batch_size": 2, "steps_per_dispatch": 1, "seed": 0, "epoch": 0}
        for _ in train_dispatches(images[:n], labels[:n], start_step=n // 2 - 10, **options):
            pass
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    before = peak_after(20)  # what TensorFlow itself takes
    # Ten dispatches of 0.5 MiB either way; half of the images leaves room for the allocator.
    assert peak_after(600) - before < 75


def test_tensorflow_is_told_to_leave_the_gpu_alone(monkeypatch):
    told = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *what: told.append(what))
    hide_gpu()
    assert told == [([], "GPU")]


def test_a_tensorflow_that_is_in_use_already_is_left_as_it_is(monkeypatch):
    def refuse(*_):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", refuse)
    hide_gpu()


def test_rows_of_more_images_are_those_of_a_copy_of_them():
    images = np.random.default_rng(0).integers(0, 256, (40, 5, 5), np.uint8)
    rows = np.random.default_rng(1).permutation(40)[:23]
    labels = np.arange(23) % 2
    how = {"batch_size": 4, "steps_per_dispatch": 2, "seed": 1, "epoch": 3}
    copied = train_dispatches(images[rows], labels, **how)
    taken = train_dispatches(images, labels, rows=rows, **how)
    for (a, count), (b, other) in zip(copied, taken, strict=True):
        assert count == other
        for name in a:
            assert np.array_equal(a[name], b[name])

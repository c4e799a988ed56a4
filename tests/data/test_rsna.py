import collections
import dataclasses
import itertools
import statistics

import numpy as np
import pytest
from challenge_folder import BOX_HEAD, BOXES, HEAD, STUDIES, write_challenge, write_table

from msa_flax.config import DataConfig
from msa_flax.data import rsna
from msa_flax.data.examples import DataError


@pytest.fixture
def root(tmp_path):
    return write_challenge(tmp_path)


def config(root, **changes):
    return dataclasses.replace(DataConfig(source="rsna2022", root=str(root)), **changes)


def found(listing):
    return {file.example_id.removeprefix("train_images/"): file.label for file in listing.files}


def test_boxes_label_slices_and_studies_without_fracture_are_normal(root):
    listing = rsna.list_rsna(config(root))
    normal = {f"1.2.4/{number}.dcm": 0 for number in range(11, 17)}
    assert found(listing) == {"1.2.3/12.dcm": 1, "1.2.3/13.dcm": 1} | normal
    assert listing.bad_files == ()
    for file in listing.files:
        study, number = file.path.parent.name, int(file.path.stem)
        assert (file.group, file.study, file.slice_index) == (study, study, number)


def test_slices_far_from_every_box_can_count_as_normal(root):
    # Slices 11 to 16 lie 2 mm apart: 15 is 4 mm below the last box, 11 only 2 mm from the first.
    listing = rsna.list_rsna(config(root, rsna_beyond=4.0))
    of_boxed = {name: label for name, label in found(listing).items() if name.startswith("1.2.3")}
    assert of_boxed == {
        "1.2.3/12.dcm": 1,
        "1.2.3/13.dcm": 1,
        "1.2.3/15.dcm": 0,
        "1.2.3/16.dcm": 0,
    }


def test_normal_slices_can_be_thinned_out_and_fractures_stay(root):
    listing = rsna.list_rsna(config(root, rsna_every=5, rsna_beyond=4.0))
    assert found(listing) == {
        "1.2.3/12.dcm": 1,
        "1.2.3/13.dcm": 1,
        "1.2.3/15.dcm": 0,
        "1.2.4/15.dcm": 0,
    }


def test_studies_without_boxes_are_known_as_whole_studies(root):
    truth = rsna.read_truth(root)
    assert truth.without_boxes == ["1.2.5"]
    assert [truth.fractured(study) for study in ("1.2.3", "1.2.4", "1.2.5")] == [True, False, True]
    assert truth.levels["1.2.3"] == (0, 1, 0, 0, 0, 0, 0)
    assert truth.boxes["1.2.3"][12] == (2.5, 3, 4, 5.5)


@pytest.mark.parametrize(
    ("head", "studies", "boxes", "reason"),
    [
        (["SOPInstanceUID", "label"], [], BOXES, "a table of another challenge"),
        (HEAD, [*STUDIES, STUDIES[1]], BOXES, "row 5: study 1.2.4 for the second time"),
        (HEAD, [["1.2.3", 0, 1, *[0] * 6], *STUDIES[1:]], BOXES, "row 2: patient_overall is not"),
        (HEAD, [["1.2.3", 2, 2, *[0] * 6], *STUDIES[1:]], BOXES, "row 2: expected a study and 0"),
        (HEAD, STUDIES, [["1.2.4", 1, 1, 2, 2, 11]], "row 2: a box in study 1.2.4, which has no"),
        (HEAD, STUDIES, [["1.9", 1, 1, 2, 2, 11]], "row 2: study 1.9 is not in train.csv"),
        (HEAD, STUDIES, [BOXES[0], BOXES[0]], "row 3: a second box on slice 12"),
        (HEAD, STUDIES, [["1.2.3", 1, 1, 0, 2, 11]], "row 2: expected numbers, with a width"),
        (HEAD, STUDIES, [["1.2.3", 1, 1, "x", 2, 11]], "row 2: expected numbers, with a width"),
        (HEAD, STUDIES, [["1.2.3", 1, 1, 3, 2, 1.5]], "row 2: expected numbers, with a width"),
    ],
)
def test_wrong_tables_are_refused_with_their_row(root, head, studies, boxes, reason):
    write_table(root / "train.csv", head, studies)
    write_table(root / "train_bounding_boxes.csv", BOX_HEAD, boxes)
    with pytest.raises(DataError, match=reason):
        rsna.read_truth(root)


def test_a_missing_table_or_folder_of_images_is_named(root):
    (root / "train_bounding_boxes.csv").unlink()
    with pytest.raises(DataError, match=r"expected train_bounding_boxes.csv of the RSNA 2022"):
        rsna.read_truth(root)
    write_table(root / "train_bounding_boxes.csv", BOX_HEAD, BOXES)
    (root / "train_images").rename(root / "images")
    with pytest.raises(DataError, match=r"expected a folder with train_images/STUDY/NUMBER\.dcm"):
        rsna.list_rsna(config(root))


def test_folders_and_boxes_that_fit_nothing_are_listed_and_the_rest_is_used(root):
    images = root / "train_images"
    (images / "1.2.9").mkdir()
    for path in (images / "1.2.4").iterdir():
        path.unlink()
    (images / "1.2.5").rename(root / "elsewhere")
    outside = ["1.2.3", 30, 3, 7, 5, 13]  # 37 of 32 pixels
    write_table(
        root / "train_bounding_boxes.csv", BOX_HEAD, [BOXES[0], outside, [*BOXES[1][:5], 99]]
    )
    with pytest.raises(DataError, match=r"5 of 6 files cannot be used: .*1\.2\.4: no slices"):
        rsna.list_rsna(config(root))
    listing = rsna.list_rsna(config(root, on_bad_file="skip"))
    assert dict(listing.bad_files) == {
        "train_images/1.2.9": "a folder that train.csv does not name",
        "train_images/1.2.4": "no slices: no file NUMBER.dcm in it",
        "train_images/1.2.5": "no such folder, train.csv names it",
        "train_images/1.2.3/99.dcm": "no such file, train_bounding_boxes.csv has a box on it",
        "train_images/1.2.3/13.dcm": "its box (30.0, 3.0, 7.0, 5.0) is outside its frame of "
        "32 x 32 pixels",
    }
    assert found(listing) == {"1.2.3/12.dcm": 1}


def test_two_files_of_one_slice_are_listed(root):
    folder = root / "train_images/1.2.4"
    (folder / "012.dcm").write_bytes((folder / "12.dcm").read_bytes())
    with pytest.raises(DataError, match="another file of slice 12 is there"):
        rsna.list_rsna(config(root))
    found = rsna.list_rsna(config(root, on_bad_file="skip"))
    assert found.bad_files == (("train_images/1.2.4/012.dcm", "another file of slice 12 is there"),)


def test_a_slice_that_is_no_ct_is_listed(root):
    (root / "train_images" / "1.2.3" / "12.dcm").write_bytes(b"nothing")
    listing = rsna.list_rsna(config(root, on_bad_file="skip"))
    assert [name for name, _ in listing.bad_files] == ["train_images/1.2.3/12.dcm"]
    assert "1.2.3/12.dcm" not in found(listing)


def test_known_faults_are_left_out_or_used_and_said(root, monkeypatch, caplog):
    faults = {
        "1.2.4": rsna.Fault("it is upside down", "a letter"),
        "1.2.3": rsna.Fault("its segmentation is", "another letter", False),
    }
    monkeypatch.setattr(rsna, "KNOWN_FAULTS", faults)
    with caplog.at_level("WARNING"):
        left = rsna.list_rsna(config(root))
        used = rsna.list_rsna(config(root, rsna_faulty="use"))
    assert {file.study for file in left.files} == {"1.2.3"}
    assert {file.study for file in used.files} == {"1.2.3", "1.2.4"}
    assert "1.2.4: it is upside down (a letter): left out" in caplog.text
    assert "1.2.4: it is upside down (a letter): used" in caplog.text
    assert "1.2.3: its segmentation is (another letter): left out" not in caplog.text


def test_each_study_without_boxes_is_tested_in_one_fold_and_validates_in_another(root):
    more = [[f"1.2.{k}", 1, 1, *[0] * 6] for k in range(20, 27)]
    write_table(root / "train.csv", HEAD, [*STUDIES, *more])
    for study, *_ in more:
        (root / "train_images" / study).mkdir()
        (root / "train_images" / study / "1.dcm").touch()
    unboxed = {"1.2.5", *(row[0] for row in more)}

    def dealt(split, fold):
        found = rsna.whole_studies(config(root, folds=4, fold=fold), split, ["1.2.4"])
        assert [path.name for path in found.pop("1.2.4")] == [f"{n}.dcm" for n in range(11, 17)]
        return list(found)

    for split in ("test", "validation"):
        folds = [dealt(split, fold) for fold in range(4)]
        assert sorted(itertools.chain(*folds)) == sorted(unboxed)
        assert {len(one) for one in folds} == {2}
    assert not {*dealt("test", 0)} & {*dealt("validation", 0)}
    assert dealt("train", 0) == []
    left_out = config(root, rsna_unboxed="leave_out")
    assert list(rsna.whole_studies(left_out, "test", ["1.2.4"])) == ["1.2.4"]


@pytest.fixture
def real(realdata):
    return rsna.read_truth(realdata / "data" / "rsna2022-labels")


@pytest.mark.realdata
def test_the_real_tables_have_their_known_counts(real):
    assert len(real.levels) == 2019
    fractured = [study for study in real.levels if real.fractured(study)]
    assert len(fractured) == 961
    assert np.sum(list(real.levels.values()), axis=0).tolist() == [146, 285, 73, 108, 162, 277, 393]
    assert len(real.boxes) == 235
    assert len(real.without_boxes) == 726
    counts = [len(found) for found in real.boxes.values()]
    assert (sum(counts), min(counts), statistics.median(counts), max(counts)) == (7217, 2, 24, 167)
    numbers = [number for found in real.boxes.values() for number in found]
    assert (min(numbers), max(numbers)) == (26, 483)


@pytest.mark.realdata
def test_the_real_boxes_of_a_study_are_mostly_one_run_of_slices(real):
    def runs(found):
        return 1 + sum(b - a > 1 for a, b in itertools.pairwise(sorted(found)))

    assert collections.Counter(map(runs, real.boxes.values()))[1] == 127


@pytest.mark.realdata
def test_every_known_fault_is_of_a_study_in_the_real_table(real):
    assert set(rsna.KNOWN_FAULTS) <= set(real.levels)

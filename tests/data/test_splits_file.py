import numpy as np
import pytest

from msa_flax.data.examples import DataError
from msa_flax.data.splits import SPLITS, Splits


def test_the_table_survives_being_written_and_read(tmp_path):
    splits = Splits(
        example_id=np.array(["a.png", 'a "quoted", odd name.png', "ü.png"]),
        split=np.array(SPLITS),
        fold=np.array(["", "B10", "0"]),
    )
    path = tmp_path / "splits.csv"
    splits.write(path)
    again = Splits.read(path)
    for column in ("example_id", "split", "fold"):
        assert getattr(again, column).tolist() == getattr(splits, column).tolist()
    assert path.read_text(encoding="utf-8").splitlines()[0] == "example_id,split,fold"
    assert [file.name for file in tmp_path.iterdir()] == ["splits.csv"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example_id,split\na,train\n",
        "example_id,split,fold\na,training,\n",
        "example_id,split,fold\na,train,\na,test,\n",
        "example_id,split,fold\na,train\n",
    ],
    ids=["empty", "other columns", "unknown split", "an id twice", "short row"],
)
def test_a_file_that_is_no_table_of_splits_is_refused(tmp_path, text):
    path = tmp_path / "splits.csv"
    path.write_text(text)
    with pytest.raises(DataError, match="not a table of splits"):
        Splits.read(path)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        Splits.read(tmp_path / "splits.csv")

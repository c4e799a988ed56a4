"""The scores of a run on whole studies: ``studies.csv``, "study" in ``metrics.json``."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msa_flax import files
from msa_flax.data import load_files
from msa_flax.data.examples import DataError, Examples
from msa_flax.data.rsna import LEVELS, read_truth, whole_studies
from msa_flax.evaluation import study
from msa_flax.evaluation.operating_point import threshold_for_sensitivity
from msa_flax.evaluation.predictions import Predictions, sigmoid
from msa_flax.evaluation.study import StudyScores
from msa_flax.evaluation.study_table import write_studies
from msa_flax.evaluation.terminal import study_lines
from msa_flax.results.scores import predict_split
from msa_flax.run import Run


def evaluate_studies(
    run: Run, split: str, *, sensitivity: float | None = None, others: Examples | None = None
) -> dict[str, Any]:
    """Evaluates the studies of a split, writes its artefacts, returns the section "study".

    How slices make a study's score and which threshold it is compared with is chosen on the studies
    of the validation split. The slices of the split must have been evaluated before.

    Args:
        run: a trained run.
        split: "train", "validation" or "test", or the name of other images.
        sensitivity: of the threshold, see
            :func:`msa_flax.evaluation.operating_point.threshold_for_sensitivity`; without one, it
            has the greatest sum of sensitivity and specificity.
        others: the other images; None for a split of the run's own.

    Raises:
        DataError: the studies of the images are not known.
        PredictionsError: the validation studies with a fracture are too few for the sensitivity.
    """
    validation = _scores(run, "validation")
    if others is None:
        scores = _scores(run, split)
        levels = _levels(run, scores)
    else:
        written = Predictions.read(run.results(split) / "predictions.csv")
        scores, levels = _of_slices(others, written), None
    chosen = study.choose(validation)
    held = chosen.apply(validation)
    if sensitivity is None:
        threshold = study.best_threshold(validation, held)
    else:
        point = threshold_for_sensitivity(
            validation.label, held, sensitivity, group=validation.patient
        )
        threshold = point.threshold
    probability = chosen.apply(scores)
    known: Any = {
        "threshold": threshold,
        "levels": levels,
        "classes": run.config.data.classes,
    }
    section = {
        "n": len(scores),
        "groups": len(np.unique(scores.patient)),
        "aggregation": dataclasses.asdict(chosen),
        "threshold": threshold,
        **({} if sensitivity is None else {"sensitivity": dataclasses.asdict(point)}),
        **study.study_metrics(scores.label, probability, patient=scores.patient, **known),
    }
    folder = run.results(split)
    write_studies(folder / "studies.csv", scores, probability, **known)
    values = files.read_json(folder / "metrics.json")
    files.write_json(folder / "metrics.json", values | {"study": section})
    print(study_lines(split, section, run.config.data.classes[1]))
    return section


def _levels(run: Run, scores: StudyScores) -> dict[str, np.ndarray] | None:
    """Returns which studies have a fracture of each level, where that is known."""
    if run.config.data.source != "rsna2022":
        return None
    truth = read_truth(run.config.data.root)
    found = np.array([truth.levels[name] for name in scores.study.tolist()], bool)
    return {name: found[:, i] for i, name in enumerate(LEVELS)}


def _scores(run: Run, split: str) -> StudyScores:
    examples = run.data.take(split)
    if run.config.data.source == "rsna2022":  # whose labelled slices are not whole studies
        return _of_whole_studies(run, whole_studies(run.config.data, split, set(examples.group)))
    return _of_slices(examples, predict_split(run, split)[0])


def _of_whole_studies(run: Run, paths: Mapping[str, Sequence[Path]]) -> StudyScores:
    config, names, slices = run.config.data, np.array(sorted(paths)), []
    truth = read_truth(config.root)
    for name in names.tolist():  # one by one: a study has hundreds of slices
        files_of_study = [str(path) for path in paths[name]]
        examples = load_files(files_of_study, config, skip=config.on_bad_file == "skip")
        slices.append(sigmoid(run.predict(examples.images)).astype(np.float64))
    label = np.array([int(truth.fractured(name)) for name in names.tolist()])
    return StudyScores(study=names, patient=names, label=label, slices=tuple(slices))


def _of_slices(examples: Examples, predictions: Predictions) -> StudyScores:
    names = examples.group if examples.study is None else examples.study
    if unknown := int((names == "").sum()):
        raise DataError(
            f"studies: expected the study or the patient of every image, {unknown} of "
            f"{len(names)} have none; name them in the column study of a table of labels"
        )
    return study.gather(
        names,
        predictions.probability,
        label=predictions.label,
        patient=np.where(examples.group == "", names, examples.group),
    )

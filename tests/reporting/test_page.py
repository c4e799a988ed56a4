"""The page: its numbers are those of the files, it loads nothing, and nothing in it can run."""

import base64
import dataclasses
import hashlib
import html
import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from prediction_tables import mostly_right
from saved_runs import write_run

from msa_flax.reporting.checklist import NOT_STATED
from msa_flax.reporting.page import render_page
from msa_flax.reporting.saved import read_run
from msa_flax.reporting.text import interval, shown

VOID = {"meta", "link", "img", "input", "br"}


class Parsed(HTMLParser):
    """Elements with their attributes, headings, text outside scripts, and balance of tags."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts, self.scripts = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open[-1:] in (["script"], ["style"]) else self.texts).append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def text(run):
    return render_page(run, commands=[("Train", "python -m msa_flax.train --workdir NEW")])


@pytest.fixture(scope="module")
def parsed(text):
    return Parsed(text)


def test_every_number_of_metrics_json_is_on_the_page(run, parsed):
    for entry in run.metrics["metrics"].values():
        assert shown(entry["value"]) in parsed.text
        assert interval(entry) in parsed.text
    for count in run.metrics["confusion"].values():
        assert f" {count} " in parsed.text
    assert "not a medical device" in parsed.text


def test_nothing_is_loaded_and_only_the_pages_own_scripts_run(text, parsed):
    for _, attributes in parsed.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name) or ""
            assert not value or value.startswith(("#", "data:"))
        assert not any(name.startswith("on") for name in attributes)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [m["content"] for m in parsed.all("meta") if "http-equiv" in m]
    assert "default-src 'none'" in policy
    scripts = [
        body
        for attributes, body in re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL)
        if not attributes
    ]
    assert len(scripts) == 2
    for body in scripts:
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "script-src 'unsafe" not in policy


def test_elements_are_closed_ids_are_unique_and_headings_are_in_order(parsed):
    assert parsed.open == []
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for a in parsed.all("a")}
    targets |= {a["for"] for a in parsed.all("label")}
    targets |= {a["aria-labelledby"] for a in parsed.all("section")}
    assert targets <= set(ids)
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert all(image["alt"] for image in parsed.all("img"))


def test_the_scripts_data_are_the_predictions(run, text):
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert data["labels"] == run.predictions.label.tolist()
    read_back = np.array(data["probabilities"], np.float32)
    np.testing.assert_array_equal(read_back, run.predictions.probability)
    assert data["threshold"] == 0.5
    assert {"curves-roc", "curves-pr", "curves-decision", "learning-loss"} <= set(data["charts"])


EVIL = '</script><script>alert("1")</script><img src=x onerror=alert(1)>.png'


def test_names_cannot_become_elements(tmp_path):
    rows = mostly_right(ids={0: EVIL, 1: "caf\udce9 {{ 7*7 }}.png"})
    values = {name: getattr(rows, name) for name in rows.__slots__}
    group = np.where(rows.group == "G00", EVIL, rows.group)
    rows = type(rows)(**values | {"group": group})
    folder = write_run(tmp_path / "w", rows, name=EVIL, explained=[0, 1], audit=True, stamps=[EVIL])
    text = render_page(read_run(folder, "test"), commands=[(EVIL, EVIL)])
    assert EVIL not in text
    assert html.escape(EVIL, quote=False)[:30] in text
    assert len(Parsed(text).all("script")) == 3
    assert "{{ 7*7 }}" in text
    text.encode("utf-8", "replace")


def test_stamps_are_shown_with_what_they_mean(tmp_path):
    text = render_page(
        read_run(write_run(tmp_path / "w", stamps=["copies cross the split"]), "test")
    )
    (stamp,) = re.findall(r'<p class="stamp">(.*?)</p>', text)
    assert "copies cross the split" in stamp
    assert "measure memory" in stamp


def test_no_stamp_is_shown_where_there_is_none(text):
    assert 'class="stamp"' not in text


def test_the_audit_is_shown_or_the_command_that_makes_it(run, parsed):
    assert "exact duplicates" in parsed.text
    gain = run.metrics["metrics"]["accuracy"]["value"] - 0.625
    assert "slice position, reaches an accuracy of 0.6250 on these images" in parsed.text
    assert f"it adds {shown(gain)}" in parsed.text
    without = Parsed(render_page(dataclasses.replace(run, audit={}))).text
    assert f"python -m msa_flax.audit --ladder --workdir {run.workdir}" in without


def test_the_gallery_says_how_many_images_there_are_and_how_to_make_what_is_missing(run, parsed):
    counts = run.metrics["confusion"]
    assert f"(false negative): {counts['fn']} images, {counts['fn']} shown" in parsed.text
    assert f"(true positive): {counts['tp']} images, " in parsed.text
    assert (
        f"explain --maps --workdir {run.workdir} --out {run.workdir}/eval/test/errors"
        in parsed.text
    )
    assert "no picture saved" in parsed.text
    nothing = Parsed(render_page(dataclasses.replace(run, explained=[]))).text
    assert "No image of this split has been explained" in nothing
    assert f"explain --workdir {run.workdir} --split test" in nothing


def test_where_every_error_has_its_pictures_nothing_is_said_to_be_missing(tmp_path):
    run = read_run(write_run(tmp_path / "w", n=24, explained=range(24)), "test")
    text = Parsed(render_page(run)).text
    assert "no picture saved" not in text
    assert "--out" not in text


def test_a_threshold_that_was_chosen_for_a_sensitivity_says_so(run, parsed):
    point = {"threshold": 0.5, "sensitivity": 0.9, "confidence": 0.95, "counted": "groups", "n": 40}
    point |= {"guarantee": False, "reason": "it was chosen on these images"}
    chosen = dataclasses.replace(run, metrics=run.metrics | {"operating_point": point})
    said = Parsed(render_page(chosen)).text
    assert "finds every 'fracture' image of at least 90 % of new groups" in said
    assert "That sensitivity is not guaranteed: it was chosen on these images." in said
    assert "guaranteed" not in parsed.text


def test_the_first_line_says_so_where_the_images_are_of_the_phantom(run, parsed):
    first = "Research use only, not a medical device."
    assert f"{first} toy on test" in parsed.text
    data = run.config["data"] | {"source": "phantom", "root": ""}
    phantom = Parsed(
        render_page(dataclasses.replace(run, config={**run.config, "data": data}))
    ).text
    assert f"{first} Data: synthetic phantom, no patients. toy on test" in phantom
    assert "Data synthetic phantom, no patients Images by split" in phantom


def test_the_card_says_what_it_is_not_for_and_what_nobody_has_stated(run, text):
    card = text[text.index('<section id="card"') : text.index('<section id="checklist"')]
    said = Parsed(card).text
    assert "Not for Diagnosis, triage, any decision about a person: it is not a medical" in said
    assert f"Consent and ethics {NOT_STATED}" in said
    assert "kernels 3, 5" in said
    silent = dataclasses.replace(run, config={}, run={}, audit={}, explained=[], history=[])
    text = render_page(silent)
    card = text[text.index('<section id="card"') : text.index('<section id="checklist"')]
    said = Parsed(card).text
    assert f"Network {NOT_STATED}" in said
    assert f"Trained with {NOT_STATED}" in said


@pytest.mark.parametrize("options", [{"groups": 0}, {"groups": 1}, {"label": 0}, {"label": 1}])
def test_data_of_which_little_is_known_have_a_page_too(tmp_path, options):
    run = read_run(write_run(tmp_path / "w", explained=[0], **options), "test")
    text = Parsed(render_page(run)).text
    if "label" in options:
        assert "undefined" in text
    assert ("groups are unknown" in text) == (options.get("groups") == 0)


def test_runs_are_compared_side_by_side(run, tmp_path):
    other = read_run(write_run(tmp_path / "w2", mostly_right(seed=1)), "test")
    text = render_page(run, [other])
    said = Parsed(text).text
    assert "toy (w)" in said  # equal names are told apart by their folders
    assert "toy (w2)" in said
    for one in (run, other):
        assert shown(one.metrics["metrics"]["auc"]["value"]) in said
    right = [np.isin(one.outcome, ("tp", "tn")) for one in (run, other)]
    both, mine = int((right[0] & right[1]).sum()), int((right[0] & ~right[1]).sum())
    assert f"toy (w2) {both} {mine} " in said
    assert '"comparison-roc"' in text


def test_what_repeats_the_run_is_there(run, parsed):
    assert "python -m msa_flax.train --workdir NEW" in parsed.text
    assert run.run["data_fingerprint"] in parsed.text

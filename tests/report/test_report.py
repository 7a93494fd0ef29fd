import importlib.util
import json
import re
from html.parser import HTMLParser

import pytest

from peft_autoconfig.errors import ConfigError, RunError
from peft_autoconfig.report import report, write_report
from peft_autoconfig.report.effects import choice_effects
from peft_autoconfig.report.summary import trust_in
from peft_autoconfig.report.words import (
    described,
    duration,
    label,
    label_sides,
    score,
    spread,
)
from peft_autoconfig.search import Search
from peft_autoconfig.tuner.config import AutoPEFTConfig

from .report_cases import ABOUT, HOSTILE, SPACE, make_run

PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """The elements of a page with their attributes, and all text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data

    def named(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(whole_page):
    return whole_page, Page(whole_page.read_text(encoding="utf-8"))


def test_the_page_tells_the_numbers_of_every_winner(page, findings):
    _, parsed = page
    winners = [e for e in parsed.named("details") if e.get("class") == "winner"]
    assert [winner["id"] for winner in winners] == [f"trial-{m.number}" for m in findings.front]
    for member in findings.front:
        assert f"{member.num_params:,}" in parsed.text
        assert described(member, 4) in parsed.text
        repeat = findings.repeat_of(member)
        assert spread(repeat.test.mean, repeat.test.deviation) in parsed.text
    for name in ("linear probe", "LoRA r = 8", "full fine-tuning"):
        assert name in parsed.text


def test_the_page_tells_what_matters_and_how_far_to_trust_it(page, findings):
    _, parsed = page
    text = " ".join(parsed.text.split())
    effects = choice_effects(findings.space, findings.complete)
    assert trust_in(effects).text in text
    assert f"standard deviation of {score(effects.noise)}" in text
    strongest = effects.choices[0]
    assert f"{label(strongest.name)}{score(strongest.move.middle)}" in parsed.text
    assert f"a made-up choice, at most{score(effects.chance)}" in parsed.text


def test_the_page_has_all_its_sections_and_figures(page, findings):
    _, parsed = page
    links = {link["href"].lstrip("#") for link in parsed.named("a")}
    sections = {section["id"] for section in parsed.named("section")}
    assert links == sections
    assert len(sections) == 8
    data = json.loads(parsed.scripts[0])
    places = {e["id"] for e in parsed.named("div") if e.get("class") == "figure"}
    assert places == set(data["figures"])
    front = [t for t in data["figures"]["front"]["data"] if t.get("ids")]
    numbers = {int(number) for trace in front for number in trace["ids"]}
    assert numbers == {record.number for record in findings.complete}


def test_the_page_needs_nothing_but_itself(page):
    _, parsed = page
    for _, attributes in parsed.elements:
        for name in ("src", "href", "data", "srcset", "action"):
            assert not re.match(r"\s*(https?:)?//", attributes.get(name) or "")
    assert not [link for link in parsed.named("link") if link["href"] != "data:,"]
    assert len(parsed.scripts) == 3


def test_pictures_lie_beside_the_page(page):
    file, _ = page
    names = {picture.name for picture in file.parent.iterdir()} - {file.name}
    assert names == {f"page-{n}.png" for n in ("front", "layers", "progress", "effects")}
    for name in names:
        assert (file.parent / name).read_bytes().startswith(PNG)


def test_failures_are_told_with_their_reasons(page, findings):
    _, parsed = page
    assert "ValueError: the loss became infinite" in parsed.text
    failed = len(findings.records("FAIL") + findings.records("PRUNED"))
    assert f"{failed} of {len(findings.trials)} trials failed or were refused." in parsed.text


def test_text_of_the_run_stays_text(hostile_page):
    parsed = Page(hostile_page.read_text(encoding="utf-8"))
    assert len(parsed.scripts) == 3
    assert parsed.named("img") == []
    assert "window.hit" not in parsed.scripts[2]
    assert HOSTILE in parsed.text
    assert "<" not in parsed.scripts[0]  # nothing that could end the element
    # in figures it is escaped once more, as Plotly reads tags in text
    assert "<img" not in json.dumps(json.loads(parsed.scripts[0]))
    assert hostile_page.with_name("page-front.png").read_bytes().startswith(PNG)


def test_a_search_that_is_going_on_has_a_report(tmp_path):
    search = make_run(tmp_path / "run", n=3)
    search.ask()
    parsed = Page(write_report(tmp_path / "run").read_text(encoding="utf-8"))
    assert "1 running, 0 waiting" in parsed.text
    assert "With 3 complete trials nothing can be said about what matters" in parsed.text
    assert "No comparison over new seeds" in " ".join(parsed.text.split())
    # written into the run folder, which stays one
    assert Search(SPACE, tmp_path / "run", about=ABOUT, seed=3).trials[0].state == "COMPLETE"


def test_a_search_without_a_trial_has_a_report(tmp_path):
    Search(SPACE, tmp_path / "run")
    file = write_report(tmp_path / "run", tmp_path / "page.html")
    parsed = Page(file.read_text(encoding="utf-8"))
    assert "No trial has finished yet" in parsed.text
    assert [f.name for f in tmp_path.glob("*.png")] == []
    assert file.stat().st_size < 100_000  # no Plotly where there is no figure


def test_a_report_is_replaced_by_a_newer_one(tmp_path):
    search = make_run(tmp_path / "run", n=2)
    first = write_report(tmp_path / "run")
    assert first == tmp_path / "run" / "report" / "report.html"
    before = first.read_text(encoding="utf-8")
    search.run(lambda config, learning_rate: 0.5, 3)
    assert write_report(tmp_path / "run") == first
    assert first.read_text(encoding="utf-8") != before
    assert all(not file.name.startswith(".") for file in first.parent.iterdir())


def test_wrong_arguments_are_refused(whole_run, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"named \*\.html, got .*page"):
        write_report(whole_run, tmp_path / "page")
    with pytest.raises(RunError, match="no run folder"):
        write_report(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot be used"):
        write_report(whole_run, tmp_path / "file" / "page.html")
    found = importlib.util.find_spec
    monkeypatch.setattr(report, "find_spec", lambda name: None if name == "plotly" else found(name))
    with pytest.raises(ConfigError, match=r"needs plotly.*pip install plotly\."):
        write_report(whole_run)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers_to_transform": [1]}, "serial 8 in layer 1"),
        ({"layers_to_transform": [0, 1]}, "serial 8 in layers 0, 1"),
        ({"layers_to_transform": [1, 2, 3]}, "serial 8 in layers 1-3"),
        ({}, "serial 8 in all layers"),
        ({"prefix_length": 2, "layers_to_transform": [3]}, "serial 8 + prefix 2 in layer 3"),
        (
            {"serial_bottleneck_size": [0, 4, 4, 8]},
            "serial 4 in layers 1, 2; serial 8 in layer 3",
        ),
    ],
)
def test_configurations_in_words(changes, words, findings):
    config = AutoPEFTConfig(**{"serial_bottleneck_size": 8, **changes})
    record = type(findings.front[0])(number=0, state="COMPLETE", config=config)
    assert described(record, 4) == words


def test_numbers_in_words():
    assert [score(0.91234), score(1234.5)] == ["0.912", "1234"]
    assert [spread(0.5, None), spread(0.5, 0.01)] == ["0.500", "0.500\u00a0±\u00a00.010"]
    assert [duration(s) for s in (59, 600, 7200, 360_000)] == [
        "59 s",
        "10 min",
        "2.0 h",
        "4.2 days",
    ]
    assert label_sides([10, 11, 100]) == ["left", "right", "left"]
    assert label_sides([]) == []

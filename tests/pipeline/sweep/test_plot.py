"""The picture: the same bytes every time, nothing of the network in it, and no need of it."""

import re
import shutil
from xml.etree import ElementTree

import pytest

from pipeline.sweep.plot import picture
from tests.pipeline.sweep.results import crowd, document, done
from tests.pipeline.sweep.test_job import DATA, options

DRAW = """
from tests.pipeline.sweep.results import crowd
from pipeline.sweep.plot import picture
import sys
sys.stdout.buffer.write(picture(crowd()))
"""


def texts(svg: bytes) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_two_processes_draw_the_same_bytes(work):
    drawn = [
        work.command(module=DRAW, env={"PYTHONHASHSEED": seed, "TZ": zone})
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    ]
    assert drawn[0].stdout and drawn[0].stdout == drawn[1].stdout, drawn[0].stderr


def test_nothing_of_it_lies_on_the_network_and_text_stays_text():
    svg = picture(crowd())
    without_names = re.sub(rb'xmlns(:\w+)?="[^"]*"', b"", svg)
    assert b"http" not in without_names and b"<!DOCTYPE" not in svg and b"<script" not in svg and b"@import" not in svg
    assert b"<text" in svg and b"<dc:date>" not in svg
    assert {"held-out reward accuracy", "ipo β 0.3", "exo_pair β 0.5"} <= set(texts(svg))


def test_a_name_says_what_the_settings_do_not_share():
    beta_alone = picture(document(done("ipo", 0.1, 0.7, 0.1), done("ipo", 0.3, 0.7, 0.2)))
    assert {"β 0.1", "β 0.3"} <= set(texts(beta_alone))
    assert "ipo" in texts(picture(document(done("ipo", 0.1, 0.7, 0.1))))


def test_the_chosen_setting_stands_out():
    svg = picture(document(done("ipo", 0.1, 0.7, 0.1), done("ipo", 0.3, 0.8, 0.2))).decode()
    (bold,) = re.findall(r"<text[^>]*font-weight: 700[^>]*>([^<]*)<", svg)
    assert bold == "β 0.3" and "Filled: chosen on the dev pairs." in " ".join(texts(svg.encode()))


def test_settings_without_a_drift_are_left_out_and_the_caption_says_so():
    settings = (done("ipo", 0.1, 0.7, 0.1), done("simpo", 2.0, 0.8, None), done("simpo", 3.0, 0.8, None))
    svg = picture(document(*settings, metric="ranking_accuracy"))
    caption = " ".join(texts(svg)[-2:])
    assert "Not shown, because without a reference there is no drift: simpo." in caption
    assert not [text for text in texts(svg) if text.startswith("simpo β")]
    assert picture(document(settings[1])) is None


@pytest.mark.parametrize(("least", "logarithmic"), [(0.01, True), (0.049, True), (0.051, False)])
def test_an_axis_over_a_factor_of_six_is_logarithmic(least, logarithmic):
    svg = picture(document(done("ipo", 0.1, 0.7, least), done("ipo", 0.3, 0.8, 0.3)))
    assert ({"0.05", "0.1", "0.2"} <= set(texts(svg)) and "0.15" not in texts(svg)) == logarithmic


def test_a_policy_that_never_moved_can_be_drawn():
    assert picture(document(done("ipo", 0.1, 0.5, 0.0)))


def test_without_matplotlib_a_line_says_what_to_install(work):
    block = "import sys; sys.modules['matplotlib'] = None; from pipeline.__main__ import main; main()"
    command = ("sweep", "-c", str(work.config), *options((*DATA, "sweep.beta=[0.1]")))
    assert work.command(*command).returncode == 0
    shutil.rmtree(work.root / "sweep")  # and the runs stay: with them torch is not needed
    done = work.command(*command, module=block)
    assert done.returncode == 0
    (line,) = [line for line in done.stderr.splitlines() if "for want of matplotlib" in line]
    assert line.endswith("pip install 'offline-preference-pipeline[plot]'")
    assert sorted(path.name for path in work.root.glob("sweep/*/*")) == ["lock", "sweep.json", "table.md"]
    assert "picture: " in work.command(*command).stdout

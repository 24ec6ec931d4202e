"""A report's numbers, each computed again by other means, and its page, complete in itself."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from eeg import UserError
from eeg.data.cache import Cache, cache_path, find_caches
from eeg.score import plots, report, sides
from eeg.score import report_numbers as numbers
from eeg.score.metrics import nrmse
from tests.conftest import LABELS
from tests.score.conftest import by_hand, subject_names, write_run


class Probe(nn.Module):
    """Answers the standard deviation of one electrode in one stretch of time, in microvolts."""

    def __init__(self, channel, first, last):
        super().__init__()
        self.settings, self.head, self.features = {"n_times": 200}, "number", "none"
        self.channel, self.first, self.last = channel, first, last

    def forward(self, x, features=None):
        part = x[:, self.channel, self.first : self.last]
        # a second output, which is not the answer
        return part.std(1, correction=0)[:, None].expand(-1, 2)


@pytest.fixture(scope="module")
def informative(caches):
    """Windows of 10 subjects whose labels a Probe at electrode 41, 0.60 to 0.80 s, answers."""
    cache = Cache([cache_path(caches, 1, "R6"), cache_path(caches, 1, "R7")])
    cache.metadata = cache.metadata.copy()
    cache.metadata["subject"] = [f"S{i % 10}" for i in range(len(cache))]
    rows = np.arange(len(cache))
    cache.y = np.array([cache[i][41, 10 + 60 : 10 + 80].astype(float).std() for i in rows])
    return sides.Side(cache, rows)


def test_the_only_informative_electrode_and_times_rank_first(informative):
    found = numbers.importance(Probe(41, 60, 80), informative)
    assert found.windows == len(informative.rows) and found.top[0] == 41
    others = np.arange(129) != 41
    assert found.channels[41] > 1 and np.abs(found.channels[others]).max() < 1e-6
    assert set(np.argsort(-found.times)[:2]) == {6, 7} and found.times[[6, 7]].min() > 0.1
    assert np.abs(np.delete(found.times, [6, 7])).max() < 1e-6
    # by hand: without the electrode the answer is 0 for every window
    assert found.channels[41] == pytest.approx(
        np.sqrt((informative.y**2).mean()) / informative.y.std(), rel=1e-5
    )
    low, high = found.top_ends
    assert low[0] < found.channels[41] < high[0]
    low, high = found.times_ends
    assert low[6] < found.times[6] < high[6]


def test_of_few_subjects_no_interval_is_drawn(informative, monkeypatch):
    few = informative.metadata.copy()
    few["subject"] = [f"S{i % 9}" for i in range(len(few))]
    monkeypatch.setattr(informative.cache, "metadata", few)
    found = numbers.importance(Probe(41, 60, 80), informative)
    assert found.channels[41] > 1
    assert np.isnan(found.top_ends).all() and np.isnan(found.times_ends).all()


def test_occlusion_puts_the_mean_of_the_window_and_leaves_the_windows_as_they_were():
    x = torch.randn(3, 5, 23)
    before, seen = x.clone(), []

    class Watch(nn.Module):
        def forward(self, x, features=None):
            seen.append(x.clone())
            return x.sum((1, 2))[:, None]

    out = numbers.occluded(Watch(), x, None)
    assert out.shape == (3, 1 + 5 + 3) and torch.equal(x, before) and torch.equal(seen[0], before)
    for c in range(5):
        expected = before.numpy().copy()
        expected[:, c] = before[:, c].numpy().mean(1, keepdims=True)
        np.testing.assert_allclose(seen[1 + c], expected, rtol=1e-5, atol=1e-6)
    for k, part in enumerate((slice(0, 10), slice(10, 20), slice(20, 23))):
        expected = before.numpy().copy()
        expected[:, :, part] = before.numpy().mean(2, keepdims=True)
        np.testing.assert_allclose(seen[6 + k], expected, rtol=1e-5, atol=1e-6)


def test_it_ends_when_patience_does(informative, monkeypatch):
    monkeypatch.setattr(numbers, "BLOCK", 3)
    monkeypatch.setattr(numbers, "LEAST", 5)
    monkeypatch.setattr(numbers, "TOP", 3)
    monkeypatch.setattr(numbers, "PATIENCE_S", 0)
    some = informative._replace(rows=informative.rows[2:])
    assert numbers.importance(Probe(41, 60, 80), some).windows == 5
    monkeypatch.setattr(numbers, "PATIENCE_S", 20)
    monkeypatch.setattr(numbers, "MOST", 7)
    found = numbers.importance(Probe(41, 60, 80), some)
    assert found.windows == 7 and found.top[0] == 41
    assert found.top.shape == (3,) and found.top_ends.shape == (2, 3)


def test_bins_hold_as_many_each():
    x = np.random.default_rng(0).permutation(103).astype(float)
    which = numbers.bins_of(x, 10)
    assert set(np.bincount(which)) <= {10, 11} and (np.diff(which[np.argsort(x)]) >= 0).all()
    ties = numbers.bins_of(np.repeat([1.0, 2.0], [95, 5]), 10)
    assert set(ties) == {0, 1} and (ties == 1).sum() == 5
    assert set(numbers.bins_of(np.ones(7), 10)) == {0}


def test_means_of_bins_and_their_intervals_by_subject():
    rng = np.random.default_rng(1)
    subjects = np.repeat(np.arange(40), 25)
    values = rng.normal(size=40)[subjects] + 0.1 * rng.normal(size=1000)
    which = np.tile([0, 1, 1, 0, 1], 200)
    mean, low, high = numbers.bin_means(which, values, subjects)
    for b in (0, 1):
        inside = which == b
        assert mean[b] == pytest.approx(values[inside].mean())
        own = [values[inside & (subjects == s)].mean() for s in range(40)]
        # subjects have as many windows here: an ordinary standard error of their means
        error = stats.sem(own)
        assert (high[b] - low[b]) / (2 * 1.96 * error) == pytest.approx(1, abs=0.15)
    few = np.arange(9).repeat(2)
    # bins of 9 subjects
    mean, low, high = numbers.bin_means(np.tile([0, 1], 9), np.arange(18.0), few)
    np.testing.assert_allclose(mean, [8, 9])
    assert np.isnan([low, high]).all()


def test_means_of_subjects():
    names, counts, first, second = numbers.subject_means(
        np.array([b"b", b"a", b"b"]), np.array([1.0, 2.0, 4.0]), np.array([0.0, 7.0, 1.0])
    )
    assert list(names) == [b"a", b"b"]
    assert list(counts) == [1, 2]
    assert list(first) == [2, 2.5]
    assert list(second) == [7, 0.5]


def test_coverage_of_a_head_that_knows_is_right():
    rng = np.random.default_rng(2)
    moments = 0.5 + np.arange(200) / 100
    centre, spread = rng.uniform(1.2, 1.8, 4000), 0.12
    chances = stats.norm.cdf(moments + 0.005, centre[:, None], spread) - stats.norm.cdf(
        moments - 0.005, centre[:, None], spread
    )
    y = centre + spread * rng.normal(size=4000)
    np.testing.assert_allclose(numbers.coverage(chances, moments, y), numbers.LEVELS, atol=0.03)
    too_sure = numbers.coverage(chances, moments, centre + 3 * spread * rng.normal(size=4000))
    assert (too_sure < numbers.LEVELS - 0.05).all()
    # before the window opens
    assert numbers.coverage(chances, moments, np.full(4000, 0.1)).max() == 0


@pytest.fixture
def page(caches, monkeypatch):
    """write(run, ...) -> (the html, what was said to be done), with small pictures."""
    monkeypatch.setitem(plots.STYLE, "figure.dpi", 30)
    monkeypatch.setattr(numbers, "MOST", 4)

    def write(run, **settings):
        path, done = report.write(run, caches, caches.parent / "data", **settings)
        assert path == run.folder / "report.html" and not list(run.folder.glob("*partial*"))
        return path.read_text(), done

    return write


@pytest.fixture
def no_occlusion(monkeypatch):
    """Leaves the slow part of a page out of tests of other parts."""
    monkeypatch.setattr(report, "_importance", lambda *_: [])
    monkeypatch.setattr(numbers, "importance", lambda *_: SimpleNamespace(windows=0))


def text_of(page):
    """What stands on the page, without scripts, styles and pictures."""
    page = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]*>", " ", page).replace("&nbsp;", " ").split())


def resources(page):
    """The addresses that a browser would load to show the page."""
    markup = re.sub(
        r"<script[^>]*>.*?</script>", lambda m: m[0][: m[0].index(">") + 1], page, flags=re.S
    )
    found = re.findall(
        r"<(?:script|img|link|iframe|source|video|audio|object|embed)\b[^>]*?"
        r"\b(?:src|href|data)\s*=\s*[\"']([^\"']*)",
        markup,
    )
    styles = " ".join(re.findall(r"<style.*?</style>", page, flags=re.S))
    return (
        found
        + re.findall(r"url\(\s*[\"']?([^\"')]*)", styles)
        + re.findall(r"@import\s+[\"']([^\"']*)", styles)
    )


def test_a_page_is_complete_and_self_contained(page, caches, tmp_path):
    event = {"epoch": 2, "batch": 7, "kind": "out of memory", "text": "done in <2> halves"}
    run = write_run(
        tmp_path,
        "c1_tcn/20260101_000000",
        simulated=True,
        command=["run/train.py", "--challenge", "1"],
    )
    (run.folder / "history.json").write_text(
        json.dumps({"epochs": run.history["epochs"], "events": [event]})
    )
    run = type(run)(run.folder)
    html, done = page(run)
    y, p, metadata = by_hand(run, caches, ["R6", "R7"])
    text = text_of(html)
    assert f"NRMSE {nrmse(y, p):.4f}" in text
    assert f"{len(y)} windows of 12 subjects" in text
    assert "R6 + R7" in text
    for title in (
        "Learning curves",
        "Predicted against true",
        "Error by response time",
        "Error by subject",
        "Error by age",
        "Calibration",
        "The time head's distribution",
        "Electrodes",
        "Times",
        "Speed and memory",
        "Events",
        "Training settings",
    ):
        assert title in text.replace("&#39;", "'"), title
    assert "done in &lt;2&gt; halves" in text and "python run/train.py --challenge 1" in text
    assert "Simulated data." in text and "(simulated data)" in text
    assert len(resources(html)) > 5 and all(
        each.startswith(("data:", "#")) for each in resources(html)
    ), [each[:80] for each in resources(html) if not each.startswith("data:")]
    assert html.count("data:image/png") > 10 and "12 subjects, one dot each" in text


def test_resources_are_seen():
    assert resources(
        '<script src="https://a/b.js">x</script><img alt="" src="c.png">'
        '<style>@import "d.css"; p {background: url(http://e)}</style>'
    ) == ["https://a/b.js", "c.png", "http://e", "d.css"]


def test_challenge_2_on_the_validation_side(page, no_occlusion, caches, tmp_path, monkeypatch):
    monkeypatch.setattr(sides, "TEST", ("R8",))
    run = write_run(tmp_path, "c2_tcn/20260101_000000", challenge=2)
    html, done = page(run)
    text = text_of(html)
    assert "validation subjects of R5" in done
    assert "flatters" in text
    assert "Error by externalizing" in text
    assert "time head" not in text and "Simulated" not in text and "(simulated data)" not in text
    cache = find_caches(caches, 2, ["R5"])
    assert (
        f"{(~cache.metadata['copy']).sum():,} windows of {len(subject_names('R5'))} subjects"
        in text
    )


def test_a_constant_answer_still_makes_a_page(page, no_occlusion, tmp_path):
    html, done = page(write_run(tmp_path, "c1_flat/20260101_000000", center=1.5), releases=["R6"])
    text = text_of(html)
    assert "NRMSE" in text and "Calibration" not in text
    assert "The answers are a constant." in text and "Every window is answered 1.500 s" in text
    assert "the answers are a constant" in done and "occluded" not in done
    assert "nan" not in text.lower().split() and "correlation" not in text


def test_what_the_mean_of_the_training_labels_scores_on_these_windows(page, caches, tmp_path):
    run = write_run(tmp_path, "c1_tcn/20260101_000000")
    saved = torch.load(run.weights, weights_only=True)
    saved["state"]["center"].fill_(1.25)
    torch.save(saved, run.weights)
    html, done = page(run, quick=True)
    y, p, _ = by_hand(run, caches, ["R6", "R7"])
    text = text_of(html)
    expected = np.sqrt(np.mean((y - 1.25) ** 2)) / y.std()
    assert abs(expected - 1) > 1e-3
    assert (
        f"the mean of the training labels (1.250 s) scores {expected:.4f} on these windows" in text
    )
    assert f"correlation {np.corrcoef(y, p)[0, 1]:.4f}" in text and "AUROC" not in text
    assert "none of them occluded (--quick)" in done and "What matters" not in text


def test_progress_is_shown(page, caches, tmp_path, monkeypatch):
    """Windows that are answered, then windows that are occluded, each to its end."""
    seen = []

    class Recorder:
        def __init__(self, unit):
            self.unit = unit

        def __call__(self, done, total, size=0):
            seen.append((self.unit, done, total))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("eeg.cli.Progress", Recorder)
    monkeypatch.setattr(numbers, "MOST", 40)
    run = write_run(tmp_path, "c1_tcn/20260101_000000")
    page(run)
    n = len(by_hand(run, caches, ["R6", "R7"])[0])
    occluded = min(40, n)
    assert seen[-1] == ("windows occluded", occluded, occluded)
    assert len([each for each in seen if "occluded" in each[0]]) == -(-occluded // 16)
    assert ("windows answered", n, n) in seen


def test_no_mark_is_cut_at_the_edge():
    """Outliers and marks at the ends of an axis lie inside its limits, with room for half."""
    rng = np.random.default_rng(0)
    y, p = (
        np.append(rng.uniform(1, 2, 3000), [0.1, 4.0]),
        np.append(rng.uniform(1, 2, 3000), [5.0, -1.0]),
    )

    def inside(ax, x, y):
        for values, (low, high) in ((x, ax.get_xlim()), (y, ax.get_ylim())):
            room = 0.01 * (high - low)
            assert low + room < np.min(values) and np.max(values) < high - room

    for some in (slice(None), slice(2900, None)):  # cells, and dots
        inside(
            plots.against(y[some], p[some], "response time", "s").axes[0],
            np.append(y[some], p[some]),
            np.append(y[some], p[some]),
        )
    shares = np.linspace(0, 1, 9)
    inside(plots.coverage(numbers.LEVELS, shares).axes[0], 100 * numbers.LEVELS, 100 * shares)
    moments = 0.5 + np.arange(200) / 100
    early_and_late = np.array([0.05, 2.9])
    for ax in plots.examples(
        moments, np.full((2, 200), 0.005), early_and_late, np.array([1.5, 1.5])
    ).axes:
        low, high = ax.get_xlim()
        assert low < 0.05 - 0.01 and high > 2.9 + 0.01
    ages, error = np.array([6.0, 10.0, 20.0]), np.array([0.1, 0.5, 0.9])
    inside(
        plots.by_age(ages, error, error, error, np.zeros(3, int), "response time", "s").axes[0],
        ages,
        error,
    )


def test_what_has_not_finished_has_curves_and_the_command_to_go_on(page, tmp_path):
    run = write_run(tmp_path, "c1_tcn/20260101_000000", state={"status": "stopped"})
    html, done = page(run)
    assert "has not finished (stopped)" in done
    assert "Learning curves" in text_of(html)
    assert f"--resume {run.folder}" in text_of(html)
    run = write_run(tmp_path, "c1_class/20260101_000000", target="correct")
    assert "predicts correct" in page(run)[1]


def test_a_run_that_died_at_its_start(page, tmp_path):
    run = write_run(
        tmp_path, "c1_tcn/20260101_000000", state={"status": "failed", "reason": "no cache"}
    )
    for name in ("history", "timing"):
        (run.folder / f"{name}.json").unlink()
    config = {key: run.config[key] for key in ("challenge", "target")} | {
        "model": {"name": "tcn"},
        "train": {"max_recordings": None},
    }
    (run.folder / "config.json").write_text(json.dumps(config))
    html, done = page(type(run)(run.folder))
    assert "No epoch has ended yet" in text_of(html) and "has not finished (failed)" in done


def test_subjects_it_was_trained_on_are_refused(page, tmp_path):
    run = write_run(tmp_path, "c1_tcn/20260101_000000")
    with pytest.raises(UserError, match="was trained on 5 of the subjects"):
        page(run, releases=["R1"])


def test_the_script(page, no_occlusion, script, caches, tmp_path):
    write_run(tmp_path, "c1_tcn/20260101_000000")
    said = script("report", "--out", tmp_path, "--release", "R7")
    assert "windows of 4 subjects (R7)" in said
    assert str(tmp_path / "c1_tcn" / "20260101_000000" / "report.html") in said
    with pytest.raises(UserError, match="no finished run of challenge 1"):
        script("report", "--out", tmp_path / "absent")


def test_ages_of_challenge_1_come_from_the_release(caches, tmp_path):
    scored = sides.scored_side(caches, 1, ["R6", "R7"])
    ages = numbers.ages_of(scored, caches.parent / "data")
    for release in ("R6", "R7"):
        for i, name in enumerate(subject_names(release)):
            assert set(ages[scored.subjects == name.encode()]) == {8.0 + i}
    assert numbers.ages_of(scored, tmp_path) is None


def test_the_montage_knows_every_electrode():
    import mne

    places = mne.channels.make_standard_montage("GSN-HydroCel-129").get_positions()["ch_pos"]
    assert set(LABELS) <= set(places)


@pytest.mark.parametrize("half_width, said", [(0.1, True), (np.nan, False)])
def test_an_interval_is_named_only_where_one_is_drawn(half_width, said):
    mean = np.linspace(1, 2, 10)
    fig = plots.calibration(mean, (mean, mean - half_width, mean + half_width), "time", "s")
    labels = [text.get_text() for text in fig.axes[0].get_legend().get_texts()]
    assert any("95 % interval" in label for label in labels) == said
    assert any(label.startswith("10 bins") for label in labels)

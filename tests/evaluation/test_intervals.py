"""Intervals hold their level on few images and at the edges, and leave out 0 exactly where their test rejects it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from budwood.cli.output import format_metric
from budwood.comparison.text import format_figure, format_gap
from budwood.evaluation.class_means import class_mean_interval, f1_figures, recall_figures
from budwood.evaluation.differences import difference_interval, fisher_test, paired_difference_interval
from budwood.evaluation.intervals import (
    Metric,
    Values,
    bounded_mean_ends,
    bounded_mean_interval,
    clopper_pearson,
    mean_proportion_interval,
    percentile_interval,
    proportion_interval,
)
from budwood.evaluation.label_task import MultiLabel, SingleLabel
from budwood.evaluation.metrics import Evaluation, FunctionMetric, define_metric
from budwood.evaluation.significance import (
    ALPHA,
    compare_resampled,
    mcnemar_test,
    paired_permutation_test,
    permutation_intervals,
    smallest_permutation_p,
)
from budwood.reporting.templating import load_template
from budwood.text import Unit

MIXES = ((0.5, 0.5), (0.95, 0.05), (0.7, 0.2, 0.1), (0.1,) * 10)


def test_the_interval_of_a_proportion_is_clopper_and_pearsons() -> None:
    for count, n in [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (950, 1000)]:
        low, high = proportion_confint(count, n, method="beta")
        expected = {"value": count / n, "low": low if count else 0.0, "high": high if count < n else 1.0, "n": n}
        assert proportion_interval(count, n) == pytest.approx(expected, abs=1e-9)


def test_proportions_cover_for_every_n_exactly() -> None:
    """No draws: the chance of every count is known."""
    for n in range(1, 31):
        counts = np.arange(n + 1.0)
        low, high = clopper_pearson(counts, np.full(n + 1, float(n)))
        for p in np.linspace(0, 1, 101):
            chance = stats.binom.pmf(counts, n, p)[(low <= p + 1e-12) & (p - 1e-12 <= high)].sum()
            assert chance >= 0.95 - 1e-9, (n, p)
        assert np.all(high - low < 3.2 / np.sqrt(n)), "and no wider than need be"


def _losses(random: np.random.Generator, shape: tuple[int, ...], sharp: float, over: float) -> tuple[Values, Values]:
    """Log losses of a network of mean probability 0.9 that is `over` times too sure, and those of wrong answers."""
    chance = np.clip(random.beta(0.9 * sharp, 0.1 * sharp, shape), 1e-6, 1 - 1e-6)
    said = np.clip(1 / (1 + np.exp(-over * np.log(chance / (1 - chance)))), 1e-12, 1 - 1e-12)
    right = random.random(shape) < chance
    return -np.log(np.where(right, said, 1 - said)), -np.log(np.minimum(said, 1 - said))


@pytest.mark.parametrize(("sharp", "over"), [(4, 1), (20, 1), (4, 3), (20, 2)])
def test_the_log_loss_covers_on_few_images(sharp: float, over: float) -> None:
    random = np.random.default_rng(7)
    truth = _losses(random, (200_000,), sharp, over)[0].mean()
    for n in (1, 2, 3, 5, 8, 12, 20, 30):
        values, mistakes = _losses(random, (1000, n), sharp, over)
        covered = []
        for worst in np.quantile(np.maximum(values.max(axis=1), mistakes.mean(axis=1)), (0.25, 0.5)):
            low, high = bounded_mean_ends(values.sum(axis=1), np.square(values).sum(axis=1), n, 0.0, float(worst))
            assert low.min() >= 0
            covered.append(np.mean((low <= truth) & (truth <= high)))
        assert covered[1] >= 0.93, n


def test_the_log_loss_of_few_right_answers_is_not_below_zero_and_not_sure() -> None:
    labels = np.zeros(5, np.int32)
    logits = np.tile(np.array([[6.0, 0.0]], np.float32), (5, 1))
    found = SingleLabel(2).evaluate(labels, logits, ("a", "b"))["log_loss"]
    assert found["low"] >= 0
    assert found["value"] < 0.01
    assert found["high"] > 1, "one mistake in five costs 6 nats, and five images cannot rule that out"
    many = SingleLabel(2).evaluate(np.zeros(2000, np.int32), np.tile(logits[:1], (2000, 1)), ("a", "b"))["log_loss"]
    assert many["high"] < 0.03
    targets = np.ones((3, 2), bool)
    several = MultiLabel(2).evaluate(targets, np.full((3, 2), 4, np.float32), ("a", "b"))["log_loss"]
    assert 0 <= several["low"] <= several["value"] < 0.1 < several["high"]


def test_the_mean_of_bounded_values_stays_in_its_bounds() -> None:
    ones = np.repeat([1.0, 0.0], [7, 5])
    assert bounded_mean_interval(ones, 0.0, 1.0) == pytest.approx(proportion_interval(7, 12))
    assert bounded_mean_interval(np.ones(4), 0.0, 1.0) == pytest.approx(proportion_interval(4, 4))
    found = bounded_mean_interval(np.array([-0.9]), -1.0, 1.0)
    assert found["low"] == pytest.approx(-1, abs=0.02)
    assert -0.9 < found["high"] <= 1
    assert bounded_mean_interval(np.empty(0), 0.0, 1.0)["value"] is None


def _class_means(joint: Values, n: int, random: np.random.Generator) -> dict[str, float]:
    """How often the intervals of macro F1 and balanced accuracy hold the truth, of the classes that are present."""
    classes = len(joint)
    truth = {
        "macro_f1": 2 * np.diag(joint) / (joint.sum(axis=0) + joint.sum(axis=1)),
        "balanced_accuracy": np.diag(joint) / joint.sum(axis=1),
    }
    covered = dict.fromkeys(truth, 0)
    drawn, times = np.unique(random.multinomial(n, joint.ravel(), 100), axis=0, return_counts=True)
    for counts, often in zip(drawn, times.tolist(), strict=True):
        cells = np.repeat(np.arange(classes**2), counts)
        logits = np.eye(classes, dtype=np.float32)[cells % classes]
        answers = Evaluation(SingleLabel(classes), (cells // classes).astype(np.int32), logits)
        present = np.unique(cells // classes)
        for name, values in truth.items():
            found = define_metric(name).evaluate(answers)
            assert found.low is not None
            assert found.high is not None
            assert 0 <= found.low < found.high <= 1, "an interval always has a width"
            covered[name] += often * (found.low - 1e-9 <= values[present].mean() <= found.high + 1e-9)
    return {name: count / 100 for name, count in covered.items()}


@pytest.mark.parametrize("n", [1, 3, 8, 30])
def test_means_over_classes_cover_on_few_images(n: int) -> None:
    random = np.random.default_rng(n)
    rates: list[float] = []
    for mix, accuracy in product(MIXES, (0.6, 0.95, 1.0)):
        chance = np.full((len(mix), len(mix)), (1 - accuracy) / (len(mix) - 1))
        np.fill_diagonal(chance, accuracy)
        rates += _class_means(np.array(mix)[:, None] * chance, n, random).values()
    assert np.mean(rates) >= 0.95
    assert min(rates) >= 0.9


def test_five_of_five_right_is_not_sure() -> None:
    labels = np.array([0, 0, 0, 1, 1], np.int32)
    found = SingleLabel(2).evaluate(labels, np.eye(2, dtype=np.float32)[labels], ("a", "b"))
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert found[name]["value"] == found[name]["high"] == 1
        assert 0.2 < found[name]["low"] < 0.65
    for row in found["per_class"].values():
        assert row["f1"]["high"] == 1
        assert row["f1"]["low"] < 0.6
    wrong = SingleLabel(2).evaluate(labels, np.eye(2, dtype=np.float32)[1 - labels], ("a", "b"))
    assert wrong["macro_f1"]["low"] == 0
    assert 0.3 < wrong["macro_f1"]["high"] < 0.9


def test_the_f1_of_a_class_is_exact() -> None:
    """True positives among the images that are of the class or called it are binomial."""
    for correct, missed, called in ((5, 0, 0), (0, 3, 0), (7, 2, 4)):
        n = correct + missed + called
        found = f1_figures(*(np.array([float(x)]) for x in (correct, correct + missed, correct + called)))
        low, high = proportion_confint(correct, n, method="beta")
        low, high = (0.0 if correct == 0 else low), (1.0 if correct == n else high)
        assert found.value[0] == pytest.approx(2 * correct / (2 * correct + missed + called))
        assert (found.low[0], found.high[0]) == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))


def test_classes_together_are_narrower_than_alone_and_no_class_has_none() -> None:
    one = recall_figures(np.array([8.0]), np.array([10.0]))
    four = recall_figures(np.full(4, 8.0), np.full(4, 10.0))
    wide, narrow = class_mean_interval(one, 1.0, 10), class_mean_interval(four, 1.0, 40)
    assert (wide.low or 0) < (narrow.low or 0) < 0.8 < (narrow.high or 1) < (wide.high or 1)
    assert class_mean_interval(recall_figures(np.empty(0), np.empty(0)), 1.0, 3) == Metric(None, None, None, 3)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 12, 30])
def test_paired_proportions_cover_and_agree_with_mcnemars_test(n: int) -> None:
    """No draws: every table of n images, with its chance."""
    tables = np.array([(b, c) for b in range(n + 1) for c in range(n + 1 - b)], np.float64)
    wins, losses = tables.T
    low, high = paired_difference_interval(wins, losses, n)
    p = np.array([stats.binomtest(int(b), int(b + c)).pvalue if b + c else 1.0 for b, c in tables])
    assert np.array_equal((low > 0) | (high < 0), p < ALPHA), "0 is left out where the test rejects, and nowhere else"
    assert np.all((low < (wins - losses) / n + 1e-6) & ((wins - losses) / n - 1e-6 < high))
    for differing, share in product((0.0, 0.05, 0.2, 0.5, 1.0), (0.5, 0.75, 0.9, 1.0)):
        truth = differing * (2 * share - 1)
        chances = [differing * share, differing * (1 - share), 1 - differing]
        chance = stats.multinomial.pmf(np.stack([wins, losses, n - wins - losses], axis=1), n, chances)
        assert chance[(low <= truth + 1e-6) & (truth - 1e-6 <= high)].sum() >= 0.95


def test_paired_intervals_agree_with_the_test_on_thousands_of_tables() -> None:
    random = np.random.default_rng(0)
    for n in (15, 60, 400):
        correct = (random.random((n, 30)) < random.beta(6, 1, 30)).astype(np.float64)
        wins = correct.T @ (1 - correct)
        low, high = paired_difference_interval(wins, wins.T, n)
        assert np.array_equal((low > 0) | (high < 0), mcnemar_test(correct) < ALPHA)
        assert np.allclose(low, -high.T)


def test_a_paired_interval_is_near_that_of_wald_on_many_images() -> None:
    for n, b, c in ((400, 60, 30), (1000, 100, 60)):
        table = [[n - b - c, b], [c, 0]]
        assert reference_mcnemar(table, exact=True).pvalue < ALPHA
        low, high = paired_difference_interval(np.array([float(b)]), np.array([float(c)]), n)
        error = np.sqrt(b + c - (b - c) ** 2 / n) / n
        assert low[0] == pytest.approx((b - c) / n - 1.96 * error, abs=0.004)
        assert high[0] == pytest.approx((b - c) / n + 1.96 * error, abs=0.004)


def test_unpaired_intervals_are_fishers_test_turned_round() -> None:
    random = np.random.default_rng(0)
    for number in range(400):
        n, m = random.integers(1, 80, 2).tolist()
        a, b = (int(random.binomial(size, random.beta(2, 1))) for size in (n, m))
        p, low, high = fisher_test(a, n, b, m)
        assert ((low > 0) or (high < 0)) == (p < ALPHA)
        assert low - 1e-6 <= a / n - b / m <= high + 1e-6
        if number % 20 == 0:
            assert fisher_test(b, m, a, n) == pytest.approx((p, -high, -low))
    for a, n, b, m in ((3, 9, 11, 12), (0, 5, 5, 5), (40, 60, 20, 50)):
        table = [[a, n - a], [b, m - b]]
        sides = [stats.fisher_exact(table, alternative=side).pvalue for side in ("less", "greater")]
        assert fisher_test(a, n, b, m)[0] == pytest.approx(min(1, 2 * min(sides)))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 10), (4, 4), (12, 7), (20, 5)])
def test_unpaired_proportions_cover(n: int, m: int) -> None:
    """No draws: every table of n and m images, with its chance."""
    ends = {(a, b): fisher_test(a, n, b, m)[1:] for a in range(n + 1) for b in range(m + 1)}
    low, high = np.array(list(ends.values())).T.reshape(2, n + 1, m + 1)
    for p, q in product((0.0, 0.05, 0.3, 0.5, 0.9, 1.0), repeat=2):
        chance = np.outer(stats.binom.pmf(np.arange(n + 1), n, p), stats.binom.pmf(np.arange(m + 1), m, q))
        assert chance[(low <= p - q + 1e-6) & (p - q - 1e-6 <= high)].sum() >= 0.95


def test_the_gap_between_two_splits_is_near_the_score_interval() -> None:
    for (a, n), (b, m) in (((95, 100), (160, 200)), ((300, 600), (330, 800))):
        value, low, high = difference_interval(proportion_interval(a, n), proportion_interval(b, m))
        expected = confint_proportions_2indep(a, n, b, m, method="score", compare="diff")
        assert value == pytest.approx(a / n - b / m)
        assert [low, high] == pytest.approx(list(expected), abs=0.012)
    bare = Metric(0.9, None, None, 0)
    assert difference_interval(bare, Metric(0.8, None, None, 0)) == pytest.approx((0.1, 0.1, 0.1))


def _seed_means(random: np.random.Generator, n: int, rows: int) -> Values:
    easy = random.beta(4, 0.7, (n, 1, 1)) * np.linspace(0.8, 1, rows)[:, None]
    return np.asarray((random.random((n, rows, 3)) < easy).mean(axis=2))


def test_permutation_intervals_agree_with_the_permutation_test() -> None:
    random = np.random.default_rng(1)
    for n in (1, 3, 6, 12, 40, 150):
        for values, bound in ((_seed_means(random, n, 10), 1.0), (random.gamma(0.3, 1, (n, 10)), None)):
            p = paired_permutation_test(values)
            low, high = permutation_intervals(values, p, bound)
            known = ~np.isnan(low)
            assert np.array_equal(((low > 0) | (high < 0))[known], (p < ALPHA)[known])
            assert known.all() == (bound is not None or n > 5), "fewer than six images reject nothing"
            difference = values.mean(axis=0)[:, None] - values.mean(axis=0)
            assert np.all((low <= difference + 1e-5)[known] & (difference - 1e-5 <= high)[known])
            assert np.allclose(low[known], -high.T[known])


@pytest.mark.parametrize("n", [2, 6, 12, 30])
def test_differences_of_rows_with_seeds_cover_on_few_images(n: int) -> None:
    random, covered = np.random.default_rng(n), []
    for _ in range(40):
        easy = random.beta(4, 0.7, (n, 1, 1))
        right = random.random((n, 6, 3)) < easy * np.array([1, 0.8] * 3)[:, None]
        values = right.mean(axis=2)
        values = np.stack([values[:, 0], values[:, 1]], axis=1)
        low, high = permutation_intervals(values, paired_permutation_test(values), 1.0)
        covered.append(low[0, 1] <= 0.2 * 4 / 4.7 <= high[0, 1])
    assert np.mean(covered) >= 0.9


def test_rows_with_seeds_that_never_differ_have_an_interval_with_a_width() -> None:
    values = np.ones((12, 2))
    low, high = permutation_intervals(values, paired_permutation_test(values), 1.0)
    assert low[0, 1] == pytest.approx(-proportion_interval(0, 12)["high"], abs=0.05)
    assert high[0, 1] == pytest.approx(-low[0, 1])


def test_resampled_metrics_agree_with_their_test_and_are_not_sure_on_few_images() -> None:
    random = np.random.default_rng(0)
    for n in (2, 5, 12, 60):
        labels = random.integers(0, 3, n).astype(np.int32)
        calls = np.where(random.random((8, n)) < 0.8, labels, random.integers(0, 3, (8, n)))
        logits = [np.eye(3, dtype=np.float32)[row] for row in (*calls, labels, (labels + 1) % 3)]
        metric = define_metric("macro_f1")
        values, spread = metric.resample(SingleLabel(3), labels, logits)  # type: ignore[attr-defined]
        least = smallest_permutation_p(logits)
        assert least[-1, -2] == pytest.approx(min(1, 2.0 ** (1 - n)))
        p, low, high = compare_resampled(values, spread, least, 0.1, 1.0)
        assert np.array_equal((low > 0) | (high < 0), p < ALPHA)
        assert np.all(p >= least)
        assert low.min() >= -1
        assert high.max() <= 1
        assert np.all((high - low)[~np.eye(10, dtype=bool)] > 0)
    assert smallest_permutation_p([np.zeros((4, 2)), np.zeros((4, 3))])[0, 1] == 1 / 8


def _accuracy(task: object, labels: np.ndarray, logits: np.ndarray) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def test_a_function_of_ones_own_has_an_interval_with_a_width_or_none_and_says_so() -> None:
    labels = np.tile([0, 1], 20).astype(np.int32)
    logits = np.eye(2, dtype=np.float32)[labels]
    found = FunctionMetric(_accuracy).evaluate(Evaluation(SingleLabel(2), labels, logits))
    assert found.high == 1
    assert found.low == pytest.approx(proportion_interval(40, 40)["low"], abs=0.03)
    few = FunctionMetric(_accuracy).evaluate(Evaluation(SingleLabel(2), labels[:4], logits[:4]))
    assert few == {"value": 1.0, "low": None, "high": None, "n": 4}
    targets = np.eye(3, dtype=bool)[np.arange(40) % 3]
    several = FunctionMetric(lambda task, labels, logits: float(((logits > 0) == labels).all(axis=1).mean()))
    found = several.evaluate(Evaluation(MultiLabel(3), targets, np.where(targets, 2, -2).astype(np.float32)))
    assert found.value == found.high == 1
    assert 0.8 < (found.low or 0) < 0.98
    assert percentile_interval(0.5, [np.array([0.4, np.nan]), np.array([np.nan])], 9) == Metric(0.5, 0.4, 0.5, 9)
    assert percentile_interval(0.5, [np.array([np.nan])], 9).value is None


def test_average_precision_of_few_images_is_not_sure() -> None:
    targets = np.array([[True, False], [False, True], [True, True], [True, False]])
    logits = np.where(targets, 3, -3).astype(np.float32)
    found = MultiLabel(2).evaluate(targets, logits, ("a", "b"))
    for metric in (found["mean_average_precision"], *(row["average_precision"] for row in found["per_class"].values())):
        assert metric["value"] == metric["high"] == 1
        assert 0.1 < metric["low"] < 0.85
    worst = MultiLabel(2).evaluate(targets, -logits, ("a", "b"))["mean_average_precision"]
    assert worst["low"] <= worst["value"] < worst["high"]


@pytest.mark.parametrize("seeds", [1, 3])
def test_means_of_seeds_cover_on_few_images(seeds: int) -> None:
    random = np.random.default_rng(seeds)
    for n in (1, 2, 5, 12, 30):
        covered = []
        for _ in range(150):
            easy = random.beta(4, 0.7, (n, 1))
            found = mean_proportion_interval((random.random((n, seeds)) < easy).mean(axis=1), seeds)
            covered.append(found["low"] <= 4 / 4.7 <= found["high"])
        assert np.mean(covered) >= 0.9


def test_a_figure_without_an_interval_says_so_everywhere() -> None:
    few = Metric(0.75, None, None, 4)
    assert format_metric(few) == "75.0 % (n too small for an interval), n = 4"
    assert format_metric(Metric(None, None, None, 0)) == "undefined (n = 0)"
    some, gap = replace(few, n=5), Metric(-0.1, None, None, 5)
    assert format_figure(some, Unit()) == ("75.0 %", "n too small for an interval")
    assert format_figure(few, Unit()) == format_gap(replace(gap, n=4), Unit()) == ("too few to tell", "n = 4")
    assert format_gap(gap, Unit()) == ("−10.0", "n too small for an interval")
    source = "{{ some|shares }}; {{ some|interval }}; {{ few|shares }}; {{ few|interval }}; {{ unknown|interval }}"
    page = load_template("report.html").environment.from_string(source)
    said = page.render(some=some, few=few, unknown=Metric(None, None, None, 0))
    cell, line, few_cell, few_line, none = said.replace("&nbsp;", "_").split("; ")
    assert cell == "75.0_% <small>n too small for an interval (n = 5)</small>"
    assert line == "n too small for an interval, n = 5"
    assert few_cell == f'<small class="few">{few_line}</small>' == '<small class="few">too few to tell (n = 4)</small>'
    assert none == "n = 0"

"""Claims of a source are confirmed or denied by paired tests, or it is said why they cannot be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from budwood.comparison.claims import judge_claims, write_claims
from budwood.comparison.compare import compare
from budwood.comparison.document import Claim, Comparison, JudgedClaim, Pair
from budwood.comparison.rows import RowSpec
from budwood.evaluation.intervals import Metric
from budwood.reporting.comparison_page import render_comparison
from conftest import answers, scored_run

N = 200
TRUTH = (np.arange(N) % 2).astype(np.int32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Three rows: a bad one, a good one, and one a little better; a fourth failed."""
    folder = tmp_path_factory.mktemp("rows")
    runs = {
        name: scored_run(folder / name, TRUTH, answers(TRUTH, share, seed), lr=0.1 / (seed + 1))
        for seed, (name, share) in enumerate({"bad": 0.6, "good": 0.9, "better": 0.92}.items())
    }
    rows = [RowSpec(name, (run,)) for name, run in runs.items()]
    return compare([*rows, RowSpec("lost", (), problem="no weights")])


def _judge(made: Comparison, *claims: Claim) -> tuple[JudgedClaim, ...]:
    return judge_claims(claims, made.rows, made.pairs, made.metric)


def test_a_claim_is_confirmed_denied_or_left_open(made: Comparison) -> None:
    judged = _judge(made, Claim("a", "good", "bad"), Claim("b", "bad", "good"), Claim("c", "better", "good"))
    assert [one.verdict for one in judged] == ["confirmed", "denied", "not distinguishable"]
    ahead, behind = (one.difference for one in judged[:2])
    assert ahead
    assert behind
    assert ahead.low
    assert ahead.high
    assert ahead.value == pytest.approx(-float(behind.value or 0))
    assert 0 < ahead.low < float(ahead.value or 0) < ahead.high
    assert (behind.low, behind.high) == (-ahead.high, -ahead.low), "the same pair, turned around"


def test_p_values_are_corrected_over_the_claims_alone(made: Comparison) -> None:
    pair = next(pair for pair in made.pairs if {pair.one, pair.other} == {"good", "bad"})
    alone, *_ = _judge(made, Claim("a", "good", "bad"))
    both, *_ = _judge(made, Claim("a", "good", "bad"), Claim("c", "better", "bad"), Claim("d", "good", "better", 0.1))
    assert alone.p == pair.p
    assert both.p == pytest.approx(2 * pair.p), "Holm over the two claims without a margin"
    assert alone.p == pytest.approx(_mcnemar(alone))


def _mcnemar(claim: JudgedClaim) -> float:
    """The exact test by SciPy, from the answers that the rows were made of."""
    made_of = {"good": (0.9, 1), "bad": (0.6, 0)}
    right = {name: answers(TRUTH, share, seed).argmax(1) == TRUTH for name, (share, seed) in made_of.items()}
    wins = int((right[claim.better] & ~right[claim.than]).sum())
    losses = int((~right[claim.better] & right[claim.than]).sum())
    return float(binomtest(wins, wins + losses).pvalue)


def test_a_margin_asks_whether_a_row_is_worse_by_more(made: Comparison) -> None:
    verdicts = [
        one.verdict
        for one in _judge(
            made,
            Claim("costs little", "good", "better", 0.2),
            Claim("costs little", "bad", "good", 0.01),
            Claim("costs little", "good", "better", 0.001),
        )
    ]
    assert verdicts == ["confirmed", "denied", "not distinguishable"]


def test_of_a_loss_less_is_better() -> None:
    lower = Pair("low", "high", Metric(-0.5, -0.7, -0.3, 100), 0.001, 0.001, "test")
    confirmed, allowed = judge_claims(
        [Claim("a", "low", "high"), Claim("b", "high", "low", 0.2)], (), [lower], "log_loss"
    )
    assert (confirmed.verdict, allowed.verdict) == ("confirmed", "denied")


def test_what_was_not_tested_says_why(made: Comparison) -> None:
    failed, absent = _judge(made, Claim("a", "good", "lost"), Claim("b", "gone", "good"))
    assert (failed.verdict, failed.reason) == ("not tested", "lost: no weights")
    assert (absent.verdict, absent.reason) == ("not tested", "gone: not among the rows that were trained")
    apart = judge_claims([Claim("a", "good", "bad")], made.rows, (), made.metric)
    assert apart[0].reason == "the two rows were scored on different images"


def test_page_and_terminal_tell_the_verdicts(made: Comparison) -> None:
    claims = _judge(made, Claim("good beats bad", "good", "bad"), Claim("cuts cost little", "good", "better", 0.2))
    told = replace(made, claims=claims)
    text, page = write_claims(told), render_comparison(told)
    assert "confirmed: good beats bad (good against bad): +" in text
    assert "confirmed: cuts cost little (good against better), worse by at most 20 points: " in text
    assert "<b>confirmed</b>" in page
    assert "good beats bad (good against bad)" in page
    assert told.record()["claims"][0]["verdict"] == "confirmed"
    assert write_claims(made) == ""
    assert "tested here" not in render_comparison(made)

"""Search for the best network that this machine gives in a time: rung by rung, each of which leaves a usable run.

data -> frozen trunks compared -> a run -> fine-tuned from it -> a run -> together -> a run -> the best, with its record
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from budwood.config.ladder_options import lay_over
from budwood.config.recipe import Recipe
from budwood.data import checks
from budwood.data.dataset import Dataset
from budwood.data.leaks import Leaks
from budwood.data.selection import limit
from budwood.errors import BudwoodError, RecipeError
from budwood.evaluation.ensembles import select_greedily
from budwood.evaluation.predictions import Predictions
from budwood.hardware import count_processors
from budwood.networks.local_trunks import choose_freeze_stage, list_local_trunks
from budwood.progress import Progress
from budwood.runs.ladder_record import CandidateRecord, Figure, LadderRecord, PlannedRow, RungRecord
from budwood.runs.preflight import Preflight, check_and_plan
from budwood.runs.run import Run, lock_results
from budwood.runs.run_ids import make_run_id, refuse_bad_id
from budwood.runs.run_record import save_record
from budwood.storage.atomic import raise_storage_errors
from budwood.storage.context import Context, open_context
from budwood.text import counted, format_seconds
from budwood.training.history import EpochCallback
from budwood.workflows import ladder_rules as rules
from budwood.workflows.ensemble import ensemble
from budwood.workflows.frozen_rung import FrozenChoice, FrozenSearch, compare_frozen
from budwood.workflows.ladder_verdict import Verdict, judge
from budwood.workflows.report import write_reports
from budwood.workflows.train import estimate_cost, train_recipe

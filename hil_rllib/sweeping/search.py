"""From a sweep's file to Ray Tune's search spaces, searchers and schedulers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, Searcher

from hil_rllib.sweeping.objective import Objective
from hil_rllib.sweeping.plan import Draw, Plan
from hil_rllib.sweeping.population import population

SPACES: dict[str, Callable[..., Any]] = {
    "uniform": tune.uniform,
    "loguniform": tune.loguniform,
    "randint": tune.randint,
}
REDUCTION = 3  # of ASHA: one trial in so many goes on at each rung; Li et al. 2020 take 4, Tune's own test 3
GRACE_EVALUATIONS = 2  # that a trial gets before ASHA may stop it


def space(plan: Plan) -> dict[str, Any]:
    """Tune's space of the varied keys."""
    return {key: distribution(draw) for key, draw in plan.space.items()}


def distribution(draw: Draw) -> Any:
    if draw.kind == "grid":
        return tune.grid_search(list(draw.values))
    if draw.kind == "choice":
        return tune.choice(list(draw.values))
    return SPACES[draw.kind](*draw.values)


def searcher(plan: Plan) -> Searcher | BasicVariantGenerator:
    """What chooses the values."""
    if plan.sweep.search == "optuna":
        from ray.tune.search.optuna import OptunaSearch

        chooser = OptunaSearch(metric="objective", mode=mode(plan), seed=plan.sweep.seed)
        return ConcurrencyLimiter(chooser, plan.sweep.parallel) if plan.sweep.parallel else chooser
    return BasicVariantGenerator(
        max_concurrent=plan.sweep.parallel or 0,  # 0: as many as find a place
        random_state=plan.sweep.seed,
        constant_grid_search=True,
    )


def scheduler(plan: Plan) -> TrialScheduler:
    """What may stop a trial before its own end, or have it go on as another one."""
    if plan.sweep.scheduler == "none":
        return FIFOScheduler()
    if plan.sweep.scheduler == "pbt":
        return population(plan, space(plan), mode(plan))
    config = plan.first
    _, most = config.schedule
    return ASHAScheduler(
        time_attr="timesteps_total",  # env steps, or updates
        metric="objective",
        mode=mode(plan),
        max_t=most,
        grace_period=min(most, GRACE_EVALUATIONS * config.evaluation.every_steps),
        reduction_factor=REDUCTION,
    )


def mode(plan: Plan) -> str:
    return Objective(plan.sweep.objective, plan.first).mode

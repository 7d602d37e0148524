"""A search in MLflow: a run `tune-<head>`, below it a run a trial, and a page with what the trials say together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from training import tracking
from training.config import TrainingSettings
from training.datasets import Slice
from training.document import document, figure_html, figures, heading, sentence, table, tiles
from training.search_space import SPACE
from training.tuned_toml import section
from training.tuning import Attempt, Tuned

if TYPE_CHECKING:
    from optuna import Study

_RUN = "mlflow_run"


@contextmanager
def search_run(
    mlflow: Any, study: Study, past: Slice, head: str, settings: TrainingSettings, source: str
) -> Iterator[Callable[[Attempt], None]]:
    """The head's run, that of an earlier search for the same question where there is one; gives what logs a trial."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    client, before = mlflow.MlflowClient(), study.user_attrs.get(_RUN)
    try:
        known = before is not None and client.get_run(before).info.lifecycle_stage == "active"
    except MlflowException:
        known = False  # another tracking store, or deleted for good
    with mlflow.start_run(**({"run_id": before} if known else {"run_name": f"tune-{head}"})) as run:
        study.set_user_attr(_RUN, run.info.run_id)
        if not known:
            mlflow.log_params({"head": head, "study": study.study_name, "inner_folds": settings.split.inner_folds})
            mlflow.log_params({f"configured.{name}": value for name, value in _lightgbm(settings, head).items()})
            mlflow.set_tags({"source": source, "head": head})
            tracking.log_dataset(mlflow, past, head, source)
        parent, experiment = run.info.run_id, run.info.experiment_id
        yield lambda attempt: _log_trial(client, experiment, parent, head, attempt)


def log_found(mlflow: Any, found: Tuned, study: Study) -> None:
    """What the search found so far, in the active run."""
    mlflow.log_metrics({"trials": float(found.complete + found.pruned), "pruned": float(found.pruned)})
    if np.isfinite(found.after):
        mlflow.log_metrics({"log_loss/configured": found.before, "log_loss/best": found.after})
        mlflow.set_tags({f"best.{name}": value for name, value in found.values.items()})
        mlflow.log_text(section(found), "tuned.toml")
        mlflow.log_text(page(found, study), "tuning.html")


def page(found: Tuned, study: Study) -> str:
    """History, importances and slices of the trials as one page."""
    lines = [
        (name, f"{found.configured[name]:.4g}", f"{found.values[name]:.4g}", f"{space.low:g} to {space.high:g}")
        for name, space in SPACE.items()
    ]
    return document(
        f"Lotse: tuning {found.head}",
        [
            heading(f"Tuning {found.head}", 1, verdict="better" if found.improved else "as configured"),
            sentence(
                "The loss is that of the inner folds, inside the past; the test was not looked at. The best of many "
                "trials looks a little better than it is: a model trained with it is judged on the test."
            ),
            tiles(
                [
                    (f"{found.before:.5f}", "loss as configured"),
                    (f"{found.after:.5f}", "least loss"),
                    (f"{found.complete}", "trials to the end"),
                    (f"{found.pruned}", "given up after a fold"),
                ]
            ),
            table(("parameter", "configured", "best", "looked for in"), lines),
            *(part for title, drawn in _figures(study) for part in (heading(title), figure_html(drawn))),
            heading("Parameter by parameter"),
            sentence("The loss of the trials that ran to their end, by each value; later trials are darker."),
            figures(_slices(study)),
        ],
    )


def _figures(study: Study) -> Iterator[tuple[str, Any]]:
    from optuna import visualization  # noqa: PLC0415
    from optuna.importance import PedAnovaImportanceEvaluator  # noqa: PLC0415
    from optuna.trial import TrialState  # noqa: PLC0415

    history = visualization.plot_optimization_history(study, target_name="loss")
    yield "Trial by trial", history.update_layout(title=None, height=380)
    folds = visualization.plot_intermediate_values(study)
    folds.update_layout(
        title=None,
        height=380,
        xaxis_title="inner fold",
        yaxis_title="loss so far less that as configured",
        showlegend=False,
    )
    yield "Fold by fold", folds
    complete: Sequence[Any] = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len({one.value for one in complete}) > 1:
        importances = visualization.plot_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
        yield "What matters", importances.update_layout(title=None, height=340)


def _slices(study: Study) -> Iterator[Any]:
    from optuna import visualization  # noqa: PLC0415

    for name in SPACE:
        figure = visualization.plot_slice(study, params=[name], target_name="loss")
        figure.update_traces(marker={"showscale": False})
        yield figure.update_layout(title=None, height=300)


def _log_trial(client: Any, experiment: str, parent: str, head: str, attempt: Attempt) -> None:
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID  # noqa: PLC0415

    # by the client: the trials' threads know nothing of the active run
    tags = {
        MLFLOW_PARENT_RUN_ID: parent,
        "head": head,
        "state": "pruned" if attempt.pruned else "complete",
        "configured": str(attempt.configured).lower(),
    }
    run = client.create_run(experiment, tags=tags, run_name=f"trial-{attempt.number}").info.run_id
    for name, value in attempt.values.items():
        client.log_param(run, name, value)
    for fold, loss in enumerate(attempt.losses):
        client.log_metric(run, "log_loss_so_far", loss, step=fold)
    client.log_metric(run, "log_loss", attempt.loss)
    client.log_metric(run, "rounds", attempt.rounds)
    client.set_terminated(run)


def _lightgbm(settings: TrainingSettings, head: str) -> dict[str, Any]:
    return settings.for_head(head).lightgbm.model_dump()

"""Every verb of the command line, from a config to its stages."""

from collections.abc import Callable

from medistill.config import Config
from medistill.stages.apart import distill_apart
from medistill.stages.audit import audit
from medistill.stages.baselines import require_enough
from medistill.stages.distill import distill
from medistill.stages.evaluate import evaluate
from medistill.stages.experts import experts
from medistill.stages.load import check, load
from medistill.stages.release import release
from medistill.stages.report import write_report
from medistill.stages.session import Session
from medistill.stages.signing import signing_key


def run(session: Session) -> None:
    """`medistill run`: every stage in order, and where to look afterwards."""
    signing_key(session.config)  # a mistake in it is told now, not after the last stage
    require_enough(session, load(session))
    for stage in (experts, distill_apart if session.config.experts.private.on else distill, evaluate):
        stage(session)
    session.lead(_finish)


def _finish(session: Session) -> None:
    """What the first process does alone at the end of a run."""
    audit(session)
    # before the release, which may be refused: who decides on it reads this
    report = write_report(session)
    folder = "nothing, for a set made on whitened data is not released" if session.config.data.zca else release(session)
    session.say("")
    session.say(f"To share:     {folder}")
    session.say(f"Report:       {report}")
    if session.tracker is not None:
        uri = session.tracker.shown
        record = f"mlflow ui --backend-store-uri {uri}" if uri.startswith("sqlite") else uri
        session.say(f"Every step:   {record}")


def _shared(stage: Callable[[Session], object]) -> Callable[[Config], None]:
    """A verb whose work all processes share."""

    def from_config(config: Config) -> None:
        stage(Session(config))

    return from_config


def _led(stage: Callable[[Session], object]) -> Callable[[Config], None]:
    """A verb that is the first process's work; the others wait."""
    return _shared(lambda session: session.lead(stage))


VERBS: dict[str, Callable[[Config], None]] = {
    "check": _led(check),
    "experts": _shared(experts),
    "distill": _shared(distill),
    "evaluate": _shared(evaluate),
    "audit": _led(audit),
    "report": _led(write_report),
    "release": _led(release),
    "run": _shared(run),
}

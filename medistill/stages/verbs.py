"""Every verb of the command line, from a config to its stages."""

from collections.abc import Callable

from medistill.config import Config
from medistill.stages.audit import audit
from medistill.stages.distill import distill
from medistill.stages.evaluate import evaluate, report_of, require_enough
from medistill.stages.experts import experts
from medistill.stages.load import check, load
from medistill.stages.release import release
from medistill.stages.session import Session


def run(session: Session) -> None:
    """`medistill run`: every stage in order, and where to look afterwards."""
    require_enough(session, load(session))
    for stage in (experts, distill, evaluate, audit):
        stage(session)
    folder = release(session)
    session.say("")
    session.say(f"To share:     {folder}")
    session.say(f"Report:       {report_of(session)}")
    if session.tracker is not None:
        uri = session.tracker.shown
        record = f"mlflow ui --backend-store-uri {uri}" if uri.startswith("sqlite") else uri
        session.say(f"Every step:   {record}")


def _verb(stage: Callable[[Session], object]) -> Callable[[Config], None]:
    def from_config(config: Config) -> None:
        stage(Session(config))

    return from_config


VERBS: dict[str, Callable[[Config], None]] = {
    "check": _verb(check),
    "experts": _verb(experts),
    "distill": _verb(distill),
    "evaluate": _verb(evaluate),
    "audit": _verb(audit),
    "release": _verb(release),
    "run": _verb(run),
}

"""The command line: one verb a stage, every setting an option, help from the config's docs.

Only the config is imported before a verb is known to be wanted: `--help` must not pay for torch.
"""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, get_origin, get_type_hints

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser, Namespace, set_loader
from yaml import YAMLError

from medistill import __version__, parallel
from medistill.config import Config
from medistill.config.yaml_text import TooLargeError, load_settings, require_bounded
from medistill.errors import UserError
from medistill.foreign import one_line, reason, shown
from medistill.mistakes import in_words, options, wrong_value

VERBS = {
    "check": "read every film and list all that is wrong; what was read is not read again by run",
    "experts": "train the expert networks on the training films",
    "distill": "distil the films into a few synthetic images per class",
    "evaluate": "train fresh networks on the synthetic images and measure them on the test films",
    "audit": "search what the synthetic images tell about patients",
    "report": "write one HTML page of what was measured and searched, for people",
    "release": "write the folder that can be shared, if the audit allows it",
    "run": "all of these in order; what is done already is not done again",
}

FOLDER_VERBS = {
    "train": "fit a classifier on a release",
    "predict": "ask that classifier about films",
    "merge": "combine the releases of several hospitals into one",
    "verify": "check that a release is what its signatory shared: files, signature, audit, views",
    "trace": "tell how a release came about, from the MLflow record",
    "keygen": "make a pair of keys to sign releases with",
}
"""What is done with a release; the settings of a verb are the class of its name in medistill.config, its work the
function of its name in medistill.stages."""

SHORT = {
    "--method": ("--distill.method",),
    "--quick": ("--audit.quick", "true"),
    "--override": ("--release.override",),
    "--accept": ("--release.accept",),
    "--key": ("--release.key",),
}
"""Options with a short name, and what they stand for."""

set_loader("yaml", load_settings, exceptions=(YAMLError,))


class Parser(ArgumentParser):
    """A parser whose mistakes are one line and exit code 2.

    Attributes:
        kind: the dataclass of the settings it reads.
    """

    kind: type = Config

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the cause in one line."""
        cause: BaseException | None = ex
        while cause is not None:
            if isinstance(cause, UserError):
                fail(one_line(str(cause)))
            cause = cause.__cause__ or cause.__context__
        fail(one_line(in_words(message, self.prog, self.kind)))


def fail(message: str, code: int = 2) -> NoReturn:
    """Print why the run ends, once however many processes end, and exit; code 2 is a mistake of the user's."""
    if parallel.tells():
        print(f"medistill: {message}", file=sys.stderr, flush=True)
    else:
        parallel.let_tell()
    raise SystemExit(code)


def parser(verb: str) -> Parser:
    """The parser of one verb."""
    made = Parser(prog=f"medistill {verb}", description=VERBS[verb].capitalize() + ".")
    made.add_argument("--config", action="config", help="a YAML file of settings; later options override it")
    made.add_class_arguments(Config, None, help="settings of the run")
    return made


def folder_parser(verb: str) -> Parser:
    """The parser of a verb on folders: what is always given comes without a dash."""
    kind = getattr(import_module(f"medistill.config.{verb}"), verb.capitalize())
    made = Parser(prog=f"medistill {verb}", description=FOLDER_VERBS[verb].capitalize() + ".")
    made.kind = kind
    docs = {one.arg_name: one.description for one in parse_docstring(kind.__doc__).params}
    lists = [name for name, hint in get_type_hints(kind).items() if get_origin(hint) is list]
    for name in kind.POSITIONAL:
        made.add_argument(name, type=str, help=docs[name], nargs="+" if name in lists else None)
    for name in [name for name in lists if name not in kind.POSITIONAL]:
        made.add_argument(f"--{name}", type=str, help=docs[name], nargs="+", default=[])
    made.add_class_arguments(kind, None, skip={*kind.POSITIONAL, *lists})
    return made


def usage() -> str:
    """The help of `medistill` itself."""
    width = max(map(len, VERBS | FOLDER_VERBS))
    verbs, folder_verbs = (
        "\n".join(f"  {verb:<{width}}  {text}" for verb, text in table.items()) for table in (VERBS, FOLDER_VERBS)
    )
    return (
        "usage: medistill VERB [--config FILE.yaml] [--SETTING VALUE ...]\n"
        "       medistill VERB FOLDER [--OPTION VALUE ...]\n\n"
        f"Distil a hospital's chest X-rays into a few synthetic images that can be shared.\n\n{verbs}\n\n"
        f"With a release, one's own or another's:\n\n{folder_verbs}\n\n"
        "`medistill VERB --help` lists every setting, `--print_config` prints them as YAML.\n"
        'audit --quick: the checks that take seconds. release --override, --accept "name: reason": who answers for '
        "a set that the audit does not clear; --key FILE: who signs it.\n"
        "Example: medistill run --config configs/phantom.yaml --distill.ipc 2"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `medistill`."""
    logging.getLogger("torch.utils.cpp_extension").addFilter(_worth_telling)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--"]:  # keeps torchrun from taking our options for its own; not every version drops it
        words.pop(0)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return
    if words[0] == "--version":
        print(f"medistill {__version__}")
        return
    verb = words.pop(0)
    every = [*VERBS, *FOLDER_VERBS]
    if verb not in every:
        near = get_close_matches(verb, every, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        fail(f"{shown(verb)!r} is not a verb; choose one of {', '.join(every)}{hint}")
    work = prepare(verb, words)
    # threads that spin while they wait for one another starve whoever shares the machine
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        work()
        parallel.leave()
    except UserError as error:
        fail(str(error), error.code)
    except OSError as error:
        where = f"{Path(str(error.filename)).name}: " if error.filename else ""
        fail(
            f"{where}{error.strerror or error}; check the disk's space and the rights to the folder, and run the same "
            "command again: nothing that was finished is lost"
        )
    except KeyboardInterrupt:
        fail("stopped; the same command goes on where this one left off", 130)
    except parallel.PeerLostError as error:
        fail(str(error), 1)


def prepare(verb: str, words: list[str]) -> Callable[[], object]:
    """The work that a verb and its arguments ask for; a mistake in them exits with code 2."""
    if verb in VERBS:
        config = configure(verb, words)  # before the stages are imported: its mistakes and its help come at once
        return partial(stage(verb), config)
    settings = configure_folder(verb, words)
    return partial(getattr(import_module(f"medistill.stages.{verb}"), verb), settings, partial(print, flush=True))


def configure_folder(verb: str, arguments: Sequence[str]) -> Any:
    """The settings of a verb on folders; a mistake in its arguments exits with code 2."""
    made = folder_parser(verb)
    try:
        return made.kind(**vars(made.instantiate(made.parse_args(arguments))))
    except UserError as error:
        fail(str(error))


def configure(verb: str, arguments: Sequence[str]) -> Config:
    """The settings that a verb's arguments and config file make; a mistake in them exits with code 2."""
    made = parser(verb)
    try:
        _require_bounded(arguments)
        parsed = made.parse_args([_shipped(word) for word in _in_full(arguments)])
        _require_sections(parsed)
        chosen = made.instantiate(parsed)
        return Config(**{name: chosen[name] for name in Config.__dataclass_fields__})
    except UserError as error:
        fail(one_line(str(error)))
    except UnicodeDecodeError as error:
        fail(f"--config: the file is not in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8")
    except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        fail(f"the settings cannot be read ({reason(error)}); see {made.prog} --help for what each may be")


def _require_bounded(words: Sequence[str]) -> None:
    """Raise a UserError where a word is YAML that would take long to build: the parser reads some past our loader."""
    for word in words:
        option, equals, value = word.partition("=")
        try:
            require_bounded(value if equals else word)
        except TooLargeError as error:
            named = shown(option, 40) if equals else shown(word, 40)
            raise UserError(f"{named}: no setting is so large ({error}); give a plain value") from error
        except YAMLError:
            continue


def _require_sections(parsed: Namespace) -> None:
    """Raise a UserError where a single value stands for a whole section, which the parser lets pass."""
    for name, kind in options():
        if is_dataclass(kind) and not isinstance(parsed[name], Namespace):
            raise UserError(wrong_value(name, parsed[name]))


def stage(verb: str) -> Callable[[Config], None]:
    """The stages behind a verb."""
    from medistill.stages import verbs

    return verbs.VERBS[verb]


def _worth_telling(record: logging.LogRecord) -> bool:
    """False for what torch says where the CUDA tools are installed and no GPU is: the device is told by us."""
    return not str(record.msg).startswith("No CUDA runtime is found")


def _in_full(arguments: Sequence[str]) -> list[str]:
    """The arguments without short names."""
    words: list[str] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        name, *rest = SHORT.get(option, (option,))
        words += [f"{name}={value}"] if equals else [name, *rest]
    return words


def _shipped(word: str) -> str:
    """A config that is not found here is looked up among those shipped with the package."""
    option, _, value = word.rpartition("=")
    if option:
        return f"{option}={_shipped(value)}"
    if not word.startswith("configs/") or os.path.exists(word):  # noqa: PTH110 - no error at a name too long
        return word
    package = Path(__file__).parent
    # an installed package carries its configs inside, a checkout beside
    found = [place / word for place in (package, package.parent) if os.path.exists(place / word)]  # noqa: PTH110
    return str(found[0]) if found else word


if __name__ == "__main__":
    main()

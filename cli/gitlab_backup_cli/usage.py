"""What is wrong with arguments, said as everything else here: typer's own words are those of a programmer."""

from __future__ import annotations

import re
from typing import Any


def explain(error: Any) -> tuple[str, str]:
    """Return the message and the hint of an error of typer."""
    context = getattr(error, "ctx", None)
    program = context.command_path if context is not None else "gitlab-backup-cli"
    message, nearest = _message(error)
    meant = f"Do you mean {' or '.join(nearest)}? " if nearest else ""
    return message, f"{meant}See `{program} --help`."


def reason(error: Any) -> str:
    """Say what a value that is refused must be, and what it is: `must be a whole number, not 'many'`."""
    # Typer has each of these from pydantic, which knows what is wrong.
    details: Any = getattr(error.__cause__, "errors", list)()
    descriptor = getattr(error.param, "type_descriptor", None)
    if not details:
        return f"is refused: {error.message}"
    first = details[0]
    limits = first.get("ctx", {})
    expected = {
        "int_parsing": "a whole number",
        "int_from_float": "a whole number",
        "float_parsing": "a number",
        "bool_parsing": "true or false",
        "greater_than_equal": f"at least {limits.get('ge')}",
        "less_than_equal": f"at most {limits.get('le')}",
    }.get(first["type"])
    if expected is None and descriptor is not None and descriptor.is_choice:
        expected = " or ".join(str(getattr(each, "value", each)) for each in descriptor.choices)
    return f"must be {expected}, not {first['input']!r}" if expected else f"is refused: {error.message}"


def _message(error: Any) -> tuple[str, tuple[str, ...]]:
    """Return the message, and the names that may have been meant."""
    kind = type(error).__name__
    if kind == "NoSuchOption":
        return f"there is no option {error.option_name}", tuple(sorted(error.possibilities or ()))
    if kind == "BadOptionUsage":
        return f"{error.option_name} needs a value", ()
    if kind == "MissingParameter" and error.param is not None:
        return f"{_name(error)} is missing", ()
    if kind == "BadParameter" and error.param is not None:
        return f"{_name(error)} {reason(error)}", ()
    return _reworded(error.format_message())


def _reworded(text: str) -> tuple[str, tuple[str, ...]]:
    """Return what is meant by a text of typer that has no class of its own."""
    if found := re.fullmatch(r"No such command '(.*?)'\.(?: Did you mean (.*)\?)?", text, re.DOTALL):
        return f"there is no command {found[1]}", tuple(re.findall(r"'(.*?)'", found[2] or ""))
    if found := re.fullmatch(r"Got unexpected extra argument(?:s|\(s\))? \((.*)\)", text, re.DOTALL):
        return f"too much is given: {found[1]}", ()
    return "a command is missing" if text == "Missing command." else text, ()


def _name(error: Any) -> str:
    """Return what the value was given as: an option, an argument, or a variable of the environment."""
    parameter, context = error.param, error.ctx
    source = None if context is None else context.get_parameter_source(parameter.name)
    if source is not None and source.name == "ENVIRONMENT":
        return f"the environment variable {parameter.envvar}"
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name)
    return str(max(parameter.opts, key=len))

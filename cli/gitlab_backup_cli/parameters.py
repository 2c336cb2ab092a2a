"""Options that several commands have in common, given to a command in place of one parameter that holds them all."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def in_place_of(
    name: str, make: Callable[..., object], annotations: Mapping[str, object]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator: the parameter `name` of a command becomes options, which are handed to `make`.

    `annotations` has an annotation for each option. All are optional: their default is None.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapper(*args: Any, **values: Any) -> None:
            given = make(**{each: values.pop(each) for each in annotations})
            command(*args, **values, **{name: given})

        signature = inspect.signature(command, eval_str=True)
        options = [
            inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for each, annotation in annotations.items()
        ]
        parameters = []
        for parameter in signature.parameters.values():
            parameters += options if parameter.name == name else [parameter]
        wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return wrapper

    return decorate

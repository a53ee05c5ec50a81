"""Parameters of a notebook: read from its `parameters` cell, and values checked against them.

papermill's own inspection infers no types, cuts values at a `#`, and only warns of a name it does not
know; a misspelt parameter would then run for an hour with the default. So names and types are settled
here, before anything starts, from the literals and comments of the cell itself.
"""

import ast
import difflib
import io
import json
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from helpers.errors import UserError

Value = bool | int | float | str | list

KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
}


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: `name = default  # help`."""

    name: str
    default: Value
    help: str


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook by name, in the order of its cell tagged `parameters`.

    Raises UserError when the file is no notebook, has no such cell, or assigns anything but literals.
    """
    cell = _parameters_cell(notebook)
    source = "".join(cell["source"])
    try:
        statements = ast.parse(source).body
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    except (SyntaxError, tokenize.TokenError) as error:
        raise UserError(
            f"{notebook}: the parameters cell is not Python ({error.args[0]}); keep to lines like epochs = 5."
        ) from error
    parameters = {}
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=literal):
                pass
            case _:
                raise UserError(_not_literal(notebook, source, statement))
        try:
            default = ast.literal_eval(literal)
        except ValueError as error:
            raise UserError(_not_literal(notebook, source, statement)) from error
        if type(default) not in KINDS:
            raise UserError(_not_literal(notebook, source, statement))
        parameters[name] = Parameter(name, default, comments.get(statement.end_lineno, ""))
    return parameters


def convert(run: str, parameter: Parameter, value: object) -> Value:
    """`value` in the type of the parameter's literal: what the notebook will see.

    Text is parsed (a command line has nothing else, and YAML reads 1e-3 as text); other values must
    already have the type, except that whole numbers serve as numbers. The elements of a list keep their
    types, unless the default holds floats only. Raises UserError naming run, parameter, value and type.
    """
    kind = type(parameter.default)
    try:
        converted = _parse(kind, value) if isinstance(value, str) and kind is not str else value
        if kind is float and type(converted) is int:
            converted = float(converted)
        if type(converted) is not kind:
            raise ValueError
        if kind is list and parameter.default and all(type(item) is float for item in parameter.default):
            converted = [float(item) for item in converted]
    except (ValueError, TypeError, SyntaxError) as error:
        raise UserError(
            f"{run}: {parameter.name}={value} is not {KINDS[kind]}; "
            f"its default is {json.dumps(parameter.default, ensure_ascii=False)}."
        ) from error
    return converted


def names_folder(parameter: str) -> bool:
    """Whether a parameter of this name holds a folder: data_dir, results_dir, external_dir, gan_results."""
    return parameter.endswith(("_dir", "_results"))


def split(text: str) -> list[str]:
    """The values that commas separate; a comma inside brackets or quotes separates nothing.

    "0,1" → two values; "[0, 1],[2]" → two lists; "'a,b'" → one text, without its quotes.
    """
    pieces, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign in "[]":
            depth += 1 if sign == "[" else -1
        elif sign == "," and not depth:
            pieces.append("")
            continue
        pieces[-1] += sign
    if quote:  # an apostrophe, and no quotes
        return text.split(",")
    pieces = [piece.strip() for piece in pieces]
    return [piece[1:-1] if len(piece) > 1 and piece[0] == piece[-1] and piece[0] in "'\"" else piece
            for piece in pieces]  # fmt: skip


def suggest(word: str, known: Iterable[str]) -> str:
    """How a message on an unknown name ends: the nearest spelling, or all there are."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(known) or 'none'}."


def _parameters_cell(notebook: Path) -> dict:
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        found = [
            cell
            for cell in cells
            if cell["cell_type"] == "code" and "parameters" in cell["metadata"].get("tags", [])
        ]
    except OSError as error:
        raise UserError(
            f"{notebook}: cannot be read ({error.strerror}); correct its name in runs.yaml."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{notebook}: is not a notebook; open it in JupyterLab and save it again.") from error
    if len(found) != 1:
        raise UserError(
            f'{notebook}: {len(found) or "no"} cells are tagged "parameters"; tag one in JupyterLab.'
        )
    return found[0]


def _not_literal(notebook: Path, source: str, statement: ast.stmt) -> str:
    line = source.splitlines()[statement.lineno - 1].strip()
    return (
        f'{notebook}: "{line}" in the parameters cell is not a name and a literal (true or false, a number, '
        "text or a list); move it to a later cell."
    )


def _parse(kind: type, text: str) -> Value:
    """Text from a command line as a value of `kind`; ValueError or SyntaxError where it is none."""
    text = text.strip()
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind is list:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return ast.literal_eval(text)  # ['a', 'b'] and [True] are not JSON
    return kind(text)

"""Writing a body's source into the generated module, with everything that it reaches.

A body is read with `inspect`, its parameters are renamed to what they are bound to, the values of its closure become
literals, its constants and helper functions are written beside it under names of their own. What it reaches must be a
number, a module `math` or `numpy`, or another plain function.
"""

from __future__ import annotations

import ast
import builtins
import copy
import inspect
import math
import textwrap
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any, Final

import numpy as np

from features.declare import CatalogueError

# Called from compiled code alone: no wrappers, no files of their own in numba's cache.
_INNER: Final = '@njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)'
_MODULES: Final[dict[int, str]] = {id(math): "math", id(np): "np"}
_BUILTINS: Final = {"abs", "min", "max", "int", "float", "bool", "range", "len", "round", "True", "False", "None"}


class Emitter:
    """Collects constants and functions; `text()` is what the module needs before its own functions."""

    def __init__(self) -> None:
        self._constants: dict[str, float] = {}
        self._functions: dict[str, str] = {}
        self._names: dict[object, str] = {}
        # "name (file:line)" of each function that was written, by its name in the module
        self.origins: dict[str, str] = {}

    def expression(self, body: Callable[..., Any], inputs: Mapping[str, str]) -> str:
        """The body as an expression of its inputs: pasted if it is a single return, else a call."""
        tree = _parse(body)
        statements = _without_docstring(tree)
        if len(statements) == 1 and isinstance(statements[0], ast.Return) and statements[0].value is not None:
            renamed = _Rename(self._reached(body, tree), inputs).visit(statements[0].value)
            return f"({ast.unparse(renamed)})"
        arguments = ", ".join(inputs[parameter] for parameter in inspect.signature(body).parameters)
        return f"{self.function(body)}({arguments})"

    def assignment(self, body: Callable[..., Any], inputs: Mapping[str, str], target: str) -> list[str]:
        """The body as statements that set `target`: an expression, the body's own steps, or a call where it loops.

        A body that is pasted costs a third of the compile time of a function of its own.
        """
        tree = _parse(body)
        statements = _without_docstring(tree)
        local = _stored_names(tree)
        if len(statements) == 1 or not _pasteable(statements) or local & set(inputs):
            return [f"{target} = {self.expression(body, inputs)}"]
        names = {**inputs, **{name: f"{target}__{name}" for name in local}}
        renamed = _Rename(self._reached(body, tree), names)
        steps = [renamed.visit(statement) for statement in _setting(statements, target)]
        return [line for step in steps for line in ast.unparse(ast.fix_missing_locations(step)).splitlines()]

    def function(self, body: Callable[..., Any]) -> str:
        """Write the function and all it reaches into the module; returns its name there."""
        body = getattr(body, "py_func", body)  # a helper may be compiled already
        if body in self._names:
            return self._names[body]
        tree = _parse(body)
        name = self._unused(f"{body.__module__.rpartition('.')[2]}_{body.__name__}")
        self._names[body] = name
        self.origins[name] = f"{body.__name__!r} ({_origin(body)})"
        reached = self._reached(body, tree)
        parameters = list(inspect.signature(body).parameters)
        renamed = _Rename(reached, {p: p for p in parameters})
        lines = [_INNER, f"def {name}({', '.join(parameters)}):"]
        for statement in _without_docstring(tree):
            lines += textwrap.indent(ast.unparse(renamed.visit(statement)), "    ").splitlines()
        # helpers were added while this one was read, so they stand before it
        self._functions[name] = "\n".join(lines)
        return name

    def constant(self, name: str, value: float) -> bool:
        """Write a constant into the module; false if the name stands for another value there."""
        return self._constants.setdefault(name, value) == value

    def text(self) -> str:
        """Constants, then functions, each after those it calls."""
        constants = "\n".join(f"{name} = {_literal(value)}" for name, value in self._constants.items())
        return "\n\n\n".join(part for part in (constants, *self._functions.values()) if part)

    def _unused(self, name: str) -> str:
        candidate, number = name, 2
        while candidate in self._functions or candidate in self._names.values():
            candidate, number = f"{name}_{number}", number + 1
        return candidate

    def _reached(self, body: Callable[..., Any], tree: ast.FunctionDef) -> dict[str, ast.expr]:
        """What each free name of the body becomes in the module."""
        closure = inspect.getclosurevars(body)
        local = _local_names(tree)
        reached: dict[str, ast.expr] = {}
        for name in sorted(_used_names(tree) - local):
            if name in closure.nonlocals:
                reached[name] = self._value(body, name, closure.nonlocals[name], as_literal=True)
            elif name in closure.globals:
                reached[name] = self._value(body, name, closure.globals[name], as_literal=False)
            elif not (name in _BUILTINS and hasattr(builtins, name)):
                raise _refused(body, name, "is not known there")
        return reached

    def _value(self, body: Callable[..., Any], name: str, value: object, *, as_literal: bool) -> ast.expr:
        if isinstance(value, ModuleType):
            if id(value) not in _MODULES:
                raise _refused(body, name, f"is the module {value.__name__}; only math and numpy can be compiled")
            return ast.Name(_MODULES[id(value)], ast.Load())
        if isinstance(value, FunctionType) or hasattr(value, "py_func"):
            return ast.Name(self.function(value), ast.Load())  # type: ignore[arg-type]
        if isinstance(value, bool | int | float | np.number):
            number = value.item() if isinstance(value, np.number) else value
            number = int(number) if isinstance(number, int) and not isinstance(number, bool) else number
            if as_literal or not self.constant(name, number):
                return ast.parse(_literal(number), mode="eval").body
            return ast.Name(name, ast.Load())
        raise _refused(body, name, f"is a {type(value).__name__}; allowed: numbers, functions, math, numpy")


class _Rename(ast.NodeTransformer):
    """Free names to what was reached, parameters to what they are bound to, annotations dropped."""

    def __init__(self, reached: Mapping[str, ast.expr], inputs: Mapping[str, str]) -> None:
        self._reached = reached
        self._inputs = inputs

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self._inputs:
            return ast.Name(self._inputs[node.id], node.ctx)
        return self._reached.get(node.id, node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        if node.value is None:
            return ast.Pass()
        return ast.Assign([self.visit(node.target)], self.visit(node.value), lineno=node.lineno)


def _parse(body: Callable[..., Any]) -> ast.FunctionDef:
    try:
        source = textwrap.dedent(inspect.getsource(body))
        tree = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError) as error:
        name = getattr(body, "__name__", repr(body))
        raise CatalogueError(f"the source of {name!r} cannot be read ({error}); write it in a file with def") from None
    if not isinstance(tree, ast.FunctionDef):
        raise CatalogueError(f"{body.__name__!r} is not a plain function; write it with def, not as a lambda")
    return tree


def _without_docstring(tree: ast.FunctionDef) -> list[ast.stmt]:
    first = tree.body[0]
    documented = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return tree.body[1:] if documented else tree.body


def _used_names(tree: ast.FunctionDef) -> set[str]:
    used: set[str] = set()
    for statement in tree.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.AnnAssign):  # an annotation is not computed
                used -= {n.id for n in ast.walk(node.annotation) if isinstance(n, ast.Name)}
            elif isinstance(node, ast.Name):
                used.add(node.id)
    return used


def _local_names(tree: ast.FunctionDef) -> set[str]:
    return {argument.arg for argument in tree.args.args} | _stored_names(tree)


def _stored_names(tree: ast.FunctionDef) -> set[str]:
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _pasteable(statements: list[ast.stmt]) -> bool:
    """Whether a body is made of assignments, branches and returns alone, with a return at its end."""
    plain = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.If, ast.Return)
    nodes = [node for statement in statements for node in ast.walk(statement) if isinstance(node, ast.stmt)]
    return all(isinstance(node, plain) for node in nodes) and isinstance(statements[-1], ast.Return)


def _setting(statements: list[ast.stmt], target: str) -> list[ast.stmt]:
    """The statements with every return turned into an assignment; what follows a branch that returns goes into it."""
    done: list[ast.stmt] = []
    for place, statement in enumerate(statements):
        if isinstance(statement, ast.Return):
            value = statement.value or ast.Constant(None)
            return [*done, ast.Assign([ast.Name(target, ast.Store())], value, lineno=statement.lineno)]
        if isinstance(statement, ast.If) and any(isinstance(node, ast.Return) for node in ast.walk(statement)):
            # copied, because renaming changes the nodes in place
            branches = (
                _setting([*branch, *copy.deepcopy(statements[place + 1 :])], target)
                for branch in (statement.body, statement.orelse)
            )
            return [*done, ast.If(statement.test, *branches)]
        done.append(statement)
    return done


def _literal(value: float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "math.nan" if math.isnan(value) else "math.inf" if value > 0 else "-math.inf"
    return repr(value)


def _origin(body: Callable[..., Any]) -> str:
    code = body.__code__
    return f"{code.co_filename.rpartition('/')[2]}:{code.co_firstlineno}"


def _refused(body: Callable[..., Any], name: str, why: str) -> CatalogueError:
    return CatalogueError(f"{body.__name__!r} ({_origin(body)}) uses {name!r}, which {why}")

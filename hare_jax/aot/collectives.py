"""The communication between devices in one execution of a compiled program, from its HLO text.

XLA's own cost analysis counts the body of a loop once. Here it counts once per iteration: a layer
that is scanned 22 times and gathers its weights gives 22 all-gathers.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
# The first line of a computation: `%body.12 (arg: (f32[8], s32[])) -> (f32[8], s32[]) {`.
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
# An array's type: `bf16[8,128]`.
_ARRAY = re.compile(r"\b([a-z]+)(\d*)\w*\[([\d,]*)\]")
# The computations that an instruction names: `calls=%fusion.3`, `branch_computations={%a, %b}`.
_CALLED = re.compile(r"(?:calls|to_apply|branch_computations|called_computations)=(\{[^}]*\}|%\S+)")
_NAME = re.compile(r"%([\w.\-]+)")


@dataclass(slots=True)
class Traffic:
    """The executions of one kind of collective on one device."""

    count: int = 0
    bytes: int = 0  # sum over executions of the larger of operands and result


@dataclass(slots=True)
class _Instruction:
    """One line of HLO: `%name = shape op(operands), attributes`."""

    shape: str
    op: str
    operands: list[str]  # names of instructions; for a constant, its value
    attributes: str


_Computation = dict[str, _Instruction]  # by name; the result's instruction is named "ROOT"


def collectives(hlo: str) -> dict[str, Traffic]:
    """Returns the traffic of one execution on one device, by kind.

    `hlo` is `compiled.as_text()`. The iterations of a loop are those that its backend config
    states, else they follow from its condition `i < N` and its increment, from zero. XLA puts an
    all-reduce of which each device keeps only a part into a computation that is named
    all-reduce-scatter; it counts as a reduce-scatter.
    """
    computations, entry = _parse(hlo)
    total: dict[str, Traffic] = defaultdict(Traffic)

    def visit(name: str, times: int) -> None:
        """Adds the collectives of a computation that runs `times` times."""
        body = computations[name]
        for instruction in body.values():
            kind = instruction.op.removesuffix("-start")
            if kind in KINDS:
                if name.startswith("all-reduce-scatter"):
                    kind = "reduce-scatter"
                total[kind].count += times
                total[kind].bytes += times * _payload(instruction, body)
            for called, repeats in _called(instruction, computations):
                visit(called, times * repeats)

    visit(entry, 1)
    return {kind: total[kind] for kind in KINDS if kind in total}


def _parse(hlo: str) -> tuple[dict[str, _Computation], str]:
    """Parses HLO into computations by name, and the name of the entry computation."""
    computations: dict[str, _Computation] = {}
    entry, body = "", {}
    for line in hlo.splitlines():
        if not line.startswith(" "):  # computations begin in the first column
            if match := _COMPUTATION.match(line):
                body = computations[match.group(1)] = {}
                entry = match.group(1) if line.startswith("ENTRY") else entry
        elif " = " in line:
            head, _, rest = line.partition(" = ")
            # A tuple's shape is in parentheses and has spaces; an array's shape ends at a space.
            shape, rest = _split_parenthesis(rest) if rest[0] == "(" else rest.split(" ", 1)
            op, _, rest = rest.strip().partition("(")
            operands, attributes = _split_parenthesis("(" + rest)
            name = "ROOT" if "ROOT " in head else _NAME.findall(head)[0]
            body[name] = _Instruction(shape, op, _NAME.findall(operands) or [operands], attributes)
    return computations, entry


def _split_parenthesis(text: str) -> tuple[str, str]:
    """Splits after the first balanced parenthesis: `(a (b) c) d` -> `(a (b) c)`, ` d`."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if not depth:
            return text[: index + 1], text[index + 1 :]
    return text, ""


def _called(
    instruction: _Instruction, computations: dict[str, _Computation]
) -> Iterator[tuple[str, int]]:
    """Yields (computation, number of runs) for each computation that an instruction runs."""
    if instruction.op == "while":
        condition, body = (
            re.findall(rf"\b{part}=%([\w.\-]+)", instruction.attributes)[0]
            for part in ("condition", "body")
        )
        yield body, _iterations(instruction, computations[condition], computations[body])
    # The end and the update of an asynchronous operation name the computation of its start.
    elif not instruction.op.endswith(("-done", "-update")):
        for called in _CALLED.findall(instruction.attributes):
            for name in _NAME.findall(called):
                yield name, 1


def _iterations(loop: _Instruction, condition: _Computation, body: _Computation) -> int:
    """Returns the number of iterations of a loop; 1 if it cannot be determined."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
        return int(known.group(1))
    # The condition is compare(get-tuple-element(state, index), limit).
    index, limit = None, 1
    for name in condition["ROOT"].operands:
        operand = condition.get(name)
        if operand is not None and operand.op == "constant":
            limit = int(operand.operands[0].strip("()"))
        elif operand is not None and (match := re.search(r"index=(\d+)", operand.attributes)):
            index = int(match.group(1))
    if index is None:
        return 1
    # The body returns a tuple whose element `index` is add(get-tuple-element(state, index), step).
    counter = body.get(body["ROOT"].operands[index])
    while counter is not None and counter.op in ("copy", "bitcast"):
        counter = body.get(counter.operands[0])
    operands = [body[name] for name in counter.operands if name in body] if counter else []
    steps = [int(o.operands[0].strip("()")) for o in operands if o.op == "constant"]
    return math.ceil(limit / (steps[0] if steps else 1))


def _payload(instruction: _Instruction, body: _Computation) -> int:
    """Returns the bytes of a collective: the larger of its operands and its result."""
    operands = sum(_bytes(body[name].shape) for name in instruction.operands if name in body)
    result = _bytes(instruction.shape)
    if instruction.op.endswith("-start") and instruction.shape.startswith("("):
        result -= operands  # the result of a start is a tuple of the operands and the future result
    return max(operands, result)


def _bytes(shape: str) -> int:
    """Sums the bytes of the arrays in a shape: `(bf16[8,128]{1,0}, u32[])` has 8 * 128 * 2 + 4."""
    return sum(
        math.prod(int(size) for size in sizes.split(",") if size) * _bits(letters, digits) // 8
        for letters, digits, sizes in _ARRAY.findall(shape)
    )


def _bits(letters: str, digits: str) -> int:
    """Returns the bits of an element type: bf16 is ("bf", "16"); pred takes a byte."""
    return int(digits) if digits else 8 * (letters == "pred")

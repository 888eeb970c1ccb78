"""What devices send each other in one execution of a compiled program, read off its HLO text.

XLA's own cost analysis counts the body of a loop once; here it counts as often as it runs. A layer
that is scanned 22 times and gathers its weights is 22 gathers.
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
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_ARRAY = re.compile(r"\b([a-z]+)(\d*)\w*\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|branch_computations|called_computations)=(\{[^}]*\}|%\S+)")
_NAME = re.compile(r"%([\w.\-]+)")


@dataclass(slots=True)
class Traffic:
    """`count`: executions on each device. `bytes`: of the larger of operands and result, summed."""

    count: int = 0
    bytes: int = 0


@dataclass(slots=True)
class _Instruction:
    shape: str
    op: str
    operands: list[str]
    attributes: str


def collectives(hlo: str) -> dict[str, Traffic]:
    """Kind -> traffic of one execution, on one device. `hlo`: `compiled.as_text()`.

    A loop runs as often as its backend says, or else as its condition `i < N` and its step do,
    from zero. An all-reduce of which each device keeps a part is the reduce-scatter it becomes.
    """
    computations, entry = _parse(hlo)
    total: dict[str, Traffic] = defaultdict(Traffic)

    def visit(name: str, times: int) -> None:
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


def _parse(hlo: str) -> tuple[dict[str, dict[str, _Instruction]], str]:
    """Computations by name, each a dict of instructions, and the name of the first to run."""
    computations: dict[str, dict[str, _Instruction]] = {}
    entry, body = "", {}
    for line in hlo.splitlines():
        if not line.startswith(" "):
            if match := _COMPUTATION.match(line):
                body = computations[match.group(1)] = {}
                entry = match.group(1) if line.startswith("ENTRY") else entry
        elif " = " in line:
            head, _, rest = line.partition(" = ")
            shape, rest = _until_closed(rest) if rest[0] == "(" else rest.split(" ", 1)
            op, _, rest = rest.strip().partition("(")
            operands, attributes = _until_closed("(" + rest)
            name = "ROOT" if "ROOT " in head else _NAME.findall(head)[0]
            body[name] = _Instruction(shape, op, _NAME.findall(operands) or [operands], attributes)
    return computations, entry


def _until_closed(text: str) -> tuple[str, str]:
    """`(a (b) c) d` -> `(a (b) c)`, ` d`."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if not depth:
            return text[: index + 1], text[index + 1 :]
    return text, ""


def _called(
    instruction: _Instruction, computations: dict[str, dict[str, _Instruction]]
) -> Iterator[tuple[str, int]]:
    """The computations that an instruction runs, and how often it runs them."""
    if instruction.op == "while":
        condition, body = (
            re.findall(rf"\b{part}=%([\w.\-]+)", instruction.attributes)[0]
            for part in ("condition", "body")
        )
        yield body, _trips(instruction, computations[condition], computations[body])
    elif not instruction.op.endswith(("-done", "-update")):  # they name what was started before
        for called in _CALLED.findall(instruction.attributes):
            for name in _NAME.findall(called):
                yield name, 1


def _trips(
    loop: _Instruction, condition: dict[str, _Instruction], body: dict[str, _Instruction]
) -> int:
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
        return int(known.group(1))
    index, limit = None, 1
    for name in condition["ROOT"].operands:  # compare(get-tuple-element(state, i), N)
        operand = condition.get(name)
        if operand is not None and operand.op == "constant":
            limit = int(operand.operands[0].strip("()"))
        elif operand is not None and (found := re.search(r"index=(\d+)", operand.attributes)):
            index = int(found.group(1))
    if index is None:
        return 1
    counter = body.get(body["ROOT"].operands[index])  # add(get-tuple-element(state, i), step)
    while counter is not None and counter.op in ("copy", "bitcast"):
        counter = body.get(counter.operands[0])
    steps = [body[name] for name in counter.operands if name in body] if counter else []
    sizes = [int(s.operands[0].strip("()")) for s in steps if s.op == "constant"]
    return math.ceil(limit / (sizes[0] if sizes else 1))


def _payload(instruction: _Instruction, body: dict[str, _Instruction]) -> int:
    operands = sum(_bytes(body[name].shape) for name in instruction.operands if name in body)
    result = _bytes(instruction.shape)
    if instruction.op.endswith("-start") and instruction.shape.startswith("("):
        result -= operands  # what is started returns its operands beside the result to come
    return max(operands, result)


def _bytes(shape: str) -> int:
    """Of all arrays in `(bf16[8,128]{1,0}, u32[])`: 8 * 128 * 2 + 4."""
    return sum(
        math.prod(int(size) for size in sizes.split(",") if size) * _bits(letters, digits) // 8
        for letters, digits, sizes in _ARRAY.findall(shape)
    )


def _bits(letters: str, digits: str) -> int:
    return int(digits) if digits else 8 * (letters == "pred")

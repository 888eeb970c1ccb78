"""Families of word problems; each draws names, things and numbers and computes its own answer.

Every equation in a step is true as written. It uses only numbers of the question, results of
earlier steps and well-known constants, so an answer can be checked by reading its steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from data_pipeline.reading.demo.problem_words import (
    CONTAINERS,
    FURNISHINGS,
    GOODS,
    PEOPLE,
    PLACES,
    THINGS,
    Draw,
)


class Problem(NamedTuple):
    """A question, the sentences of its solution, and its answer without a unit."""

    question: str
    steps: list[str]
    answer: str


def money(cents: int) -> str:
    """Returns an amount in dollars: "12.50" for 1250 cents, "12" for 1200."""
    return f"{cents // 100}.{cents % 100:02d}" if cents % 100 else str(cents // 100)


def gains_and_losses(draw: Draw) -> Problem:
    """Draws a problem about a number of things that grows and shrinks."""
    who, thing, place = draw.one_of(PEOPLE), draw.one_of(THINGS).many, draw.one_of(PLACES)
    start, more, less = draw.number(15, 95), draw.number(6, 60), draw.number(3, 14)
    friend = draw.one_of([person for person in PEOPLE if person != who]).name
    question = draw.one_of(
        [
            f"{who.name} had {start} {thing}. At {place} {who.he} found {more} more, and then "
            f"{who.he} gave {less} of them to {friend}. How many {thing} does {who.name} have now?",
            f"There were {start} {thing} in {who.name}'s collection. {friend} brought {more} more, "
            f"but {less} got lost on the way home. How many {thing} are left in the collection?",
            f"{who.name} counts {start} {thing} in the morning. During the day {who.he} collects "
            f"{more} and loses {less}. How many {thing} does {who.he} count in the evening?",
        ]
    )
    steps = [
        draw.one_of(["With the new ones there are", "First we add:", "Together that makes"])
        + f" {start} + {more} = {start + more} {thing}.",
        f"Without the {less} that are gone there are {start + more} - {less} = "
        f"{start + more - less}.",
    ]
    return Problem(question, steps, str(start + more - less))


def packed_in_containers(draw: Draw) -> Problem:
    """Draws a problem about things in containers, of which some are used."""
    who, thing, box = draw.one_of(PEOPLE), draw.one_of(THINGS).many, draw.one_of(CONTAINERS)
    boxes, each, used = draw.number(3, 12), draw.number(5, 24), draw.number(2, 13)
    total = boxes * each
    question = draw.one_of(
        [
            f"{who.name} has {boxes} {box.many} with {each} {thing} in each. {who.he.capitalize()} "
            f"uses {used} {thing}. How many {thing} remain?",
            f"A shop receives {boxes} {box.many} of {thing}. Each {box.one} holds {each}. On the "
            f"first day {used} {thing} are sold. How many are still in the shop?",
            f"For a party {who.name} fills {boxes} {box.many}, putting {each} {thing} into every "
            f"{box.one}. The guests take {used}. How many {thing} are left over?",
        ]
    )
    steps = [
        f"{boxes} {box.many} with {each} {thing} each hold {boxes} * {each} = {total} {thing}.",
        f"Without the {used} that are gone, {total} - {used} = {total - used} are left.",
    ]
    return Problem(question, steps, str(total - used))


def change_from_a_note(draw: Draw) -> Problem:
    """Draws a problem about the change of a purchase."""
    who, (first, second) = draw.one_of(PEOPLE), draw.some_of(GOODS, 2)
    count, price, other = draw.number(2, 6), draw.number(125, 675, 25), draw.number(150, 900, 50)
    goods, total = count * price, count * price + other
    note = next(note for note in (2000, 5000, 10000) if note > total)
    question = draw.one_of(
        [
            f"A {first.one} costs ${money(price)} and a {second.one} costs ${money(other)}. "
            f"{who.name} buys {count} {first.many} and one {second.one} and pays with a "
            f"${money(note)} note. How much change does {who.he} get, in dollars?",
            f"{who.name} goes shopping with ${money(note)}. {who.he.capitalize()} takes {count} "
            f"{first.many} at ${money(price)} each and a {second.one} for ${money(other)}. How "
            "many dollars does the cashier give back?",
        ]
    )
    steps = [
        f"The {first.many} cost {count} * ${money(price)} = ${money(goods)}.",
        f"With the {second.one} that is ${money(goods)} + ${money(other)} = ${money(total)}.",
        f"The change is ${money(note)} - ${money(total)} = ${money(note - total)}.",
    ]
    return Problem(question, steps, money(note - total))


def fraction_of_a_quantity(draw: Draw) -> Problem:
    """Draws a problem about the rest after a fraction is taken."""
    who, thing = draw.one_of(PEOPLE), draw.one_of(THINGS).many
    low = draw.number(3, 8)
    high, part = draw.number(1, low - 1), draw.number(3, 15)
    total, taken = low * part, high * part
    question = draw.one_of(
        [
            f"{who.name} picked {total} {thing} and gave away {high}/{low} of them. How many "
            f"{thing} did {who.he} keep?",
            f"Of the {total} {thing} in a bowl, {high}/{low} are taken out. How many stay?",
            f"There are {total} {thing} on a table. {who.name} paints {high}/{low} of them blue "
            "and leaves the others as they are. How many are not painted?",
        ]
    )
    steps = [
        f"1/{low} of {total} is {total} / {low} = {part}.",
        f"So {high}/{low} of {total} is {part} * {high} = {taken}."
        if high > 1
        else f"So {part} of the {thing} are concerned.",
        f"The others are {total} - {taken} = {total - taken}.",
    ]
    return Problem(question, steps, str(total - taken))


def percentage_off(draw: Draw) -> Problem:
    """Draws a problem about a discount."""
    who, good = draw.one_of(PEOPLE), draw.one_of(FURNISHINGS)
    price, percent = draw.number(20, 180, 20), draw.number(5, 60, 5)
    off, rest = price * percent // 100, price - price * percent // 100
    count = draw.number(2, 5)
    question = draw.one_of(
        [
            f"A {good.one} normally costs ${price}. In a sale it is {percent}% cheaper. How many "
            f"dollars do {count} {good.many} cost in the sale?",
            f"{who.name} wants {count} {good.many} that cost ${price} each. {who.he.capitalize()} "
            f"has a coupon for {percent}% off. How many dollars does {who.he} pay?",
        ]
    )
    steps = [
        f"{percent}% of ${price} is {price} * {percent} / 100 = {off} dollars.",
        f"One {good.one} then costs {price} - {off} = {rest} dollars.",
        f"For {count} that makes {count} * {rest} = {count * rest} dollars.",
    ]
    return Problem(question, steps, str(count * rest))


def rectangle(draw: Draw) -> Problem:
    """Draws a problem about the perimeter or the area of a rectangle."""
    who, what = (
        draw.one_of(PEOPLE),
        draw.one_of(["garden", "field", "playground", "yard", "meadow"]),
    )
    width = draw.number(4, 20)
    length = width + draw.number(2, 15)
    if draw.number(0, 1):
        cost = draw.number(3, 9)
        around = 2 * (width + length)
        question = (
            f"A rectangular {what} is {length} metres long and {width} metres wide. {who.name} "
            f"puts a fence around it that costs ${cost} a metre. How many dollars is that?"
        )
        steps = [
            f"One long and one short side together measure {length} + {width} = {length + width} "
            "metres.",
            f"All around it is 2 * {length + width} = {around} metres.",
            f"The fence costs {around} * {cost} = {around * cost} dollars.",
        ]
        return Problem(question, steps, str(around * cost))
    pond = draw.number(2, 9)
    area = width * length
    question = (
        f"{who.name}'s {what} is a rectangle of {length} by {width} metres. A pond takes up {pond} "
        f"square metres of it, and the rest is grass. How many square metres of grass are there?"
    )
    steps = [
        f"The whole {what} has an area of {length} * {width} = {area} square metres.",
        f"Without the pond, {area} - {pond} = {area - pond} square metres are grass.",
    ]
    return Problem(question, steps, str(area - pond))


UNITS = [
    ("metres", "centimetres", 100, "rope"),
    ("kilograms", "grams", 1000, "flour"),
    ("litres", "millilitres", 1000, "juice"),
    ("feet", "inches", 12, "ribbon"),
    ("hours", "minutes", 60, "film"),
    ("kilometres", "metres", 1000, "road"),
]


def unit_conversion(draw: Draw) -> Problem:
    """Draws a problem about the conversion of a length, weight, volume or time."""
    who, (large, small, factor, stuff) = draw.one_of(PEOPLE), draw.one_of(UNITS)
    whole, extra = draw.number(2, 9), draw.number(2, 9) * (factor // 20 or 1)
    converted = whole * factor
    question = draw.one_of(
        [
            f"{who.name} has {whole} {large} and {extra} {small} of {stuff}. How many {small} is "
            "that altogether?",
            f"How many {small} are {whole} {large} and {extra} {small}?",
            f"A label says {whole} {large} and {extra} {small} of {stuff}. {who.name} has to write "
            f"it in {small} only. What number does {who.he} write?",
        ]
    )
    steps = [
        f"{large.capitalize()} are turned into {small} by multiplying with {factor}: "
        f"{whole} * {factor} = {converted}.",
        f"With the other {extra} that makes {converted} + {extra} = {converted + extra} {small}.",
    ]
    return Problem(question, steps, str(converted + extra))


def average(draw: Draw) -> Problem:
    """Draws a problem about the mean of some numbers, which is a whole number."""
    who, days = draw.one_of(PEOPLE), draw.number(3, 5)
    mean = draw.number(12, 60)
    shifts = [draw.number(-9, 9) for _ in range(days - 1)]
    values = [mean + shift for shift in (*shifts, -sum(shifts))]
    values = [value if value > 0 else mean for value in values]
    rest = -sum(values) % days
    values[0] += rest
    total = sum(values)
    listed = ", ".join(map(str, values[:-1])) + f" and {values[-1]}"
    activity = draw.one_of(
        ["pages were read", "push-ups were done", "cars were counted", "eggs were collected"]
    )
    question = draw.one_of(
        [
            f"On {days} days {who.name} kept a list: {listed} {activity}. What was the average for "
            "a day?",
            f"{who.name} scored {listed} points in {days} games. How many points was that on "
            "average in a game?",
        ]
    )
    steps = [
        f"The sum is {' + '.join(map(str, values))} = {total}.",
        f"Divided by {days} that gives {total} / {days} = {total // days}.",
    ]
    return Problem(question, steps, str(total // days))


def sharing_with_remainder(draw: Draw) -> Problem:
    """Draws a problem about a division with a remainder."""
    who, thing = draw.one_of(PEOPLE), draw.one_of(THINGS).many
    people, each = draw.number(3, 9), draw.number(4, 15)
    left = draw.number(1, people - 1)
    total = people * each + left
    unknown, answer = draw.one_of([("each", each), ("left", left)])
    query = {
        "each": f"How many {thing} does everyone get at most?",
        "left": f"How many {thing} are left over?",
    }[unknown]
    question = draw.one_of(
        [
            f"{who.name} shares {total} {thing} equally among {people} children and wants to hand "
            f"out as many as possible. {query}",
            f"{people} friends divide {total} {thing} so that all of them have the same number, "
            f"and as many as possible. {query}",
        ]
    )
    steps = [
        f"Everyone can have {each}, because {people} * {each} = {people * each} and {people} more "
        "would be too many.",
        f"What cannot be shared is {total} - {people * each} = {left}.",
    ]
    if unknown == "each":
        steps.append(f"So everyone gets {each}.")
    return Problem(question, steps, str(answer))


def ages(draw: Draw) -> Problem:
    """Draws a problem about the future age of a person."""
    younger, older = draw.some_of(PEOPLE, 2)
    age, times, years = draw.number(4, 14), draw.number(2, 4), draw.number(3, 15)
    question = draw.one_of(
        [
            f"{younger.name} is {age} years old. {older.name} is {times} times as old. How old "
            f"will {older.name} be in {years} years?",
            f"{older.name} is {times} times as old as {younger.name}, who is {age}. What will be "
            f"{older.name}'s age {years} years from now?",
        ]
    )
    steps = [
        f"Today {older.name} is {times} * {age} = {times * age} years old.",
        f"In {years} years it will be {times * age} + {years} = {times * age + years}.",
    ]
    return Problem(question, steps, str(times * age + years))


def comparison(draw: Draw) -> Problem:
    """Draws a problem about three numbers that are given relative to each other."""
    (one, two, three), thing = draw.some_of(PEOPLE, 3), draw.one_of(THINGS).many
    first, times, more = draw.number(6, 30), draw.number(2, 5), draw.number(4, 25)
    second = first * times
    third = second + more
    question = draw.one_of(
        [
            f"{one.name} has {first} {thing}. {two.name} has {times} times as many, and "
            f"{three.name} has {more} more than {two.name}. How many {thing} do the three have "
            "together?",
            f"Three friends collect {thing}. {one.name} finds {first}, {two.name} finds {times} "
            f"times as many as {one.name}, and {three.name} finds {more} more than {two.name}. How "
            "many did they find in all?",
        ]
    )
    steps = [
        f"{two.name} has {first} * {times} = {second}.",
        f"{three.name} has {second} + {more} = {third}.",
        f"Together they have {first} + {second} + {third} = {first + second + third} {thing}.",
    ]
    return Problem(question, steps, str(first + second + third))


def two_legs_of_a_journey(draw: Draw) -> Problem:
    """Draws a problem about the distance covered at two speeds."""
    who, (means, low, high) = (
        draw.one_of(PEOPLE),
        draw.one_of([("cycles", 12, 24), ("drives", 50, 90), ("walks", 3, 6), ("sails", 8, 20)]),
    )
    speeds = [draw.number(low, high), draw.number(low, high)]
    hours = [draw.number(2, 5), draw.number(2, 4)]
    legs = [speed * time for speed, time in zip(speeds, hours, strict=True)]
    question = draw.one_of(
        [
            f"{who.name} {means} for {hours[0]} hours at {speeds[0]} kilometres an hour and then "
            f"for {hours[1]} hours at {speeds[1]} kilometres an hour. How many kilometres is that "
            "in total?",
            f"On a trip {who.name} {means} {hours[0]} hours before lunch, covering {speeds[0]} "
            f"kilometres every hour, and {hours[1]} hours after lunch, covering {speeds[1]} "
            f"kilometres every hour. How long is the trip in kilometres?",
        ]
    )
    steps = [
        f"The first part is {hours[0]} * {speeds[0]} = {legs[0]} kilometres long.",
        f"The second part is {hours[1]} * {speeds[1]} = {legs[1]} kilometres long.",
        f"In total that is {legs[0]} + {legs[1]} = {sum(legs)} kilometres.",
    ]
    return Problem(question, steps, str(sum(legs)))


def saving_up(draw: Draw) -> Problem:
    """Draws a problem about the number of weeks in which a sum is saved."""
    who, good = (
        draw.one_of(PEOPLE),
        draw.one_of(["bicycle", "guitar", "telescope", "tent", "camera"]),
    )
    weekly, weeks, have = draw.number(5, 25), draw.number(4, 16), draw.number(10, 60)
    price = have + weekly * weeks
    question = draw.one_of(
        [
            f"{who.name} wants to buy a {good} for ${price}. {who.he.capitalize()} already has "
            f"${have} and saves ${weekly} a week. After how many weeks can {who.he} buy it?",
            f"A {good} costs ${price}. {who.name} starts with ${have} and puts aside ${weekly} of "
            f"{who.his} pocket money every week. How many weeks does {who.he} have to save?",
        ]
    )
    steps = [
        f"What is missing is ${price} - ${have} = ${price - have}.",
        f"At ${weekly} a week that takes {price - have} / {weekly} = {weeks} weeks.",
    ]
    return Problem(question, steps, str(weeks))


def working_backwards(draw: Draw) -> Problem:
    """Draws a problem that asks for the number from which the result was obtained."""
    who, thing = draw.one_of(PEOPLE), draw.one_of(THINGS).many
    left, given, times = draw.number(4, 40), draw.number(3, 20), draw.number(2, 4)
    before = left + given
    part = {2: "half", 3: "a third", 4: "a quarter"}[times]
    question = (
        f"{who.name} put some {thing} on a table and kept exactly {part} of them for later. From "
        f"what {who.he} kept {who.he} gave {given} away and then had {left}. How many {thing} were "
        "on the table at the start?"
    )
    steps = [
        f"Before giving some away {who.name} had kept {left} + {given} = {before}.",
        f"That was {part} of all, so there had been {before} * {times} = {before * times}.",
    ]
    return Problem(question, steps, str(before * times))


def ratio(draw: Draw) -> Problem:
    """Draws a problem about a sum that is divided in a ratio."""
    one, two = draw.some_of(PEOPLE, 2)
    a, b, part = draw.number(2, 7), draw.number(1, 6), draw.number(3, 15)
    b += b >= a  # never one to one
    total = (a + b) * part
    question = draw.one_of(
        [
            f"{one.name} and {two.name} share ${total} in the ratio {a} to {b}. How many dollars "
            f"does {one.name} get?",
            f"For every {a} dollars that {one.name} earns, {two.name} earns {b}. Together they "
            f"earned ${total}. How many dollars did {one.name} earn?",
        ]
    )
    steps = [
        f"There are {a} + {b} = {a + b} equal parts.",
        f"One part is {total} / {a + b} = {part} dollars.",
        f"{one.name} has {a} parts, and {a} * {part} = {a * part}.",
    ]
    return Problem(question, steps, str(a * part))


def recipe(draw: Draw) -> Problem:
    """Draws a problem about the ingredients of a recipe for more people."""
    who, dish = (
        draw.one_of(PEOPLE),
        draw.one_of(["pancakes", "soup", "rice pudding", "stew", "salad"]),
    )
    stuff = draw.one_of(["flour", "carrots", "rice", "beans", "potatoes", "milk"])
    people, times = draw.number(2, 6), draw.number(2, 5)
    each = draw.number(20, 150, 10)
    needed, guests = people * each, people * times
    have = draw.number(10, needed - 10, 10)
    question = (
        f"A recipe of {dish} for {people} people needs {needed} grams of {stuff}. {who.name} cooks "
        f"for {guests} people and has {have} grams of {stuff} at home. How many grams are missing?"
    )
    steps = [
        f"For one person {needed} / {people} = {each} grams are needed.",
        f"For {guests} people that is {guests} * {each} = {guests * each} grams.",
        f"What is missing is {guests * each} - {have} = {guests * each - have} grams.",
    ]
    return Problem(question, steps, str(guests * each - have))


FAMILIES: tuple[Callable[[Draw], Problem], ...] = (
    gains_and_losses,
    packed_in_containers,
    change_from_a_note,
    fraction_of_a_quantity,
    percentage_off,
    rectangle,
    unit_conversion,
    average,
    sharing_with_remainder,
    ages,
    comparison,
    two_legs_of_a_journey,
    saving_up,
    working_backwards,
    ratio,
    recipe,
)


def _family(index: int) -> Callable[[Draw], Problem]:
    """Returns the family of a problem; families take turns."""
    return FAMILIES[index % len(FAMILIES)]


def family_name(index: int) -> str:
    """Returns the name of a problem's family."""
    return _family(index).__name__


def problem(index: int, seed: int) -> Problem:
    """Returns the problem with an index."""
    return _family(index)(Draw(index, seed))

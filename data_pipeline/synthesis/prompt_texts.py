"""The texts of the prompts for synthetic text (tier D2), meant to be read and edited.

A prompt consists of a passage of its category, the instruction of a style, a sentence about the
audience, and the rules at the end, in this order. The paper (section 2.2) gives one prompt, for
law: a long unit of a textbook course inspired by the passage, rigorous, engaging, applied, without
title or introduction, of more than 1000 words. The others follow its pattern. An edit changes the
address of the stages that use these texts; replies to unchanged prompts remain in the teacher's
cache.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Category:
    """A category of passages, with the audiences and the styles of the texts to write.

    Attributes:
      passage: a noun phrase that describes a passage.
      audiences: name -> a sentence about the readers.
      styles: name -> the instruction.
    """

    passage: str
    audiences: dict[str, str]
    styles: dict[str, str]


OPENING = "Below is {passage}."

RULES = (
    "Write in clear English and in full sentences. Do not copy sentences from the passage, and do "
    "not speak of it: a reader does not have it before them. Begin with the first sentence of the "
    "text itself; give no title, no remark on your task, and no closing comment to me."
)

_PUPILS = "Your readers are ten-year-old children: short sentences, everyday words, no jargon."
_SCHOOL = "Your readers are secondary-school pupils who meet the subject for the first time."
_STUDENTS = "Your readers are first-year university students of the subject."
_EXPERTS = "Your readers work in the field and want precision, exceptions and open questions."
_PUBLIC = "Your readers are curious adults without any training in the subject."

_GENERAL = {"school": _SCHOOL, "students": _STUDENTS, "public": _PUBLIC}

WEB = Category(
    "an extract from a web page",
    {"children": _PUPILS, **_GENERAL},
    {
        "textbook": "Write a long section of a textbook on a subject that this extract touches. "
        "Explain the ideas behind it step by step, with a concrete example for each, and show how "
        "they hang together. It should have more than 1000 words.",
        "article": "Write a thorough magazine article on a subject that this extract touches. "
        "Explain causes and consequences, weigh different views fairly, and support each claim "
        "with a reason or an example. It should have more than 800 words.",
        "tutorial": "Write a practical guide to a skill or task that is related to this extract. "
        "Go through it step by step, say why each step is needed, what commonly goes wrong and how "
        "to notice it. It should have more than 800 words.",
        "story": "Write a short story set around a subject of this extract. Let its characters "
        "meet a problem that can only be solved by understanding the subject, and let them explain "
        "their reasoning naturally. It should have more than 700 words.",
        "dialogue": "Write a conversation between somebody who knows a subject of this extract "
        "well and a friend who keeps asking why. Each answer should build on the one before, and "
        "misunderstandings should be cleared up. It should have more than 700 words.",
        "questions": "Write a set of eight questions and detailed answers on a subject of this "
        "extract, from the simplest to the most searching. Each answer should teach something that "
        "can be used elsewhere. It should have more than 800 words.",
    },
)

WIKI = Category(
    "an extract from an encyclopedia",
    {"children": _PUPILS, **_GENERAL, "experts": _EXPERTS},
    {
        "textbook": "Write a long unit of a textbook on the wider subject to which this extract "
        "belongs. Define each term when it first appears, give the background that makes the facts "
        "understandable, and connect them to related fields. It should have more than 1000 words.",
        "lecture": "Write the full notes of a lecture inspired by this extract, as the lecturer "
        "would speak them: a question that opens the subject, its development in three or four "
        "parts with examples, and what to take away. It should have more than 900 words.",
        "article": "Write an explanatory article on the subject of this extract that answers how "
        "it came about, why it matters, and what is often misunderstood about it. It should have "
        "more than 800 words.",
        "comparison": "Write an essay that compares the subject of this extract with one or two "
        "similar ones. Set out the criteria first, go through them in order, and say what follows "
        "from the differences. It should have more than 800 words.",
        "dialogue": "Write a discussion between a teacher and two pupils about the subject of this "
        "extract. One pupil is sceptical, the other jumps to conclusions; the teacher leads both "
        "to a sound understanding. It should have more than 700 words.",
        "story": "Write a vivid narrative that takes the reader to the place, time or matter of "
        "this extract and teaches the facts through what happens. Invent persons, but no facts. It "
        "should have more than 700 words.",
    },
)

NEWS = Category(
    "an extract from the news or a discussion of it",
    {**_GENERAL, "experts": _EXPERTS},
    {
        "background": "Write a background article on the matter behind this extract: its history, "
        "who is concerned, how the underlying mechanism works, and what may come next. Explain "
        "lasting principles rather than events of the day. It should have more than 800 words.",
        "textbook": "Write a long unit of a textbook about the economic, technical or social "
        "principle that this extract is a case of. State the principle, derive its consequences "
        "and apply it to further cases. It should have more than 1000 words.",
        "analysis": "Write a balanced analysis of the question that this extract raises. Present "
        "the strongest argument of each side, the evidence for it and its weakest point, and draw "
        "a careful conclusion. It should have more than 800 words.",
        "interview": "Write an interview with an invented specialist on the subject of this "
        "extract. The interviewer asks short, pointed questions; the answers explain, with numbers "
        "and examples where they help. It should have more than 700 words.",
        "lesson": "Write a lesson in media literacy that uses a subject like that of this extract: "
        "how to tell report from opinion, what one would have to check, and how. It should have "
        "more than 700 words.",
    },
)

ACADEMIC = Category(
    "an extract from a scholarly text",
    {"school": _SCHOOL, "students": _STUDENTS, "experts": _EXPERTS, "public": _PUBLIC},
    {
        "textbook": "Write a long and self-contained section of a textbook on a concept that this "
        "extract relies on. Build it up from what it presupposes, prove or justify each step, and "
        "close with a worked application. It should have more than 1000 words.",
        "lecture": "Write detailed lecture notes on the method or theory of this extract: "
        "motivation, definitions, main result with its reasoning, a worked example, limits. It "
        "should have more than 1000 words.",
        "explanation": "Explain the idea of this extract to somebody who is intelligent but new to "
        "the field. Start from an everyday observation, refine it until it is exact, and say where "
        "the everyday picture breaks down. It should have more than 800 words.",
        "review": "Write a survey of the questions around this extract: what has been tried, what "
        "distinguishes the approaches, what evidence would decide between them. Name no authors "
        "and cite no papers. It should have more than 900 words.",
        "problems": "Write a set of five problems of rising difficulty on the concepts of this "
        "extract, each followed by a complete solution that explains why each step is taken. It "
        "should have more than 900 words.",
        "dialogue": "Write a dialogue between a researcher and a critical colleague about the "
        "central claim of this extract: assumptions, objections, replies, and what they agree on "
        "at the end. It should have more than 800 words.",
    },
)

BOOKS = Category(
    "an extract from a book",
    {"children": _PUPILS, **_GENERAL},
    {
        "story": "Write a new and complete short story inspired by a theme, a mood or a conflict "
        "of this extract, with other characters and another setting. It needs a beginning, a turn "
        "and an end, and people who act for understandable reasons. It should have more than 1000 "
        "words.",
        "scene": "Write a long scene, mostly in dialogue, in which two people with opposite wishes "
        "deal with a situation like that of this extract. Let what they do show what they feel. It "
        "should have more than 800 words.",
        "essay": "Write a reflective essay on a human question that this extract raises. Move from "
        "a particular case to the general question and back, with examples from ordinary life. It "
        "should have more than 800 words.",
        "textbook": "Write a long unit of a course in literature or writing, inspired by this "
        "extract: one technique of telling, how it works on a reader, how to use it, with examples "
        "of your own and exercises. It should have more than 1000 words.",
        "history": "Write a chapter that explains the time and the way of life in which a text "
        "such as this extract is set: work, beliefs, law, daily habits, and how they shaped what "
        "people could do. It should have more than 900 words.",
    },
)

LAW = Category(
    "an extract from a legal text",
    {"students": _STUDENTS, "experts": _EXPERTS, "public": _PUBLIC},
    {
        "textbook": "Write a long and very detailed course unit for a textbook, inspired by this "
        "extract and not tied to its wording. It must be rigorous, with exact concepts and their "
        "exceptions; engaging, with a voice that holds the reader; and applied, with cases in "
        "which the rule decides something. Leave out a title and an introduction. It should have "
        "more than 1000 words.",
        "case": "Write an invented case that turns on a rule like the one in this extract: the "
        "facts, the arguments of both sides, the decision and its reasons, and what would have "
        "changed it. It should have more than 900 words.",
        "guide": "Write a plain guide for people to whom rules like those of this extract apply: "
        "what they may do, what they must do, by when, and what happens otherwise, with an example "
        "for each. It should have more than 800 words.",
        "seminar": "Write the course of a seminar in which a lecturer leads students by questions "
        "to the purpose of a rule like that of this extract, its limits and its reform. It should "
        "have more than 900 words.",
        "problems": "Write four exam questions with model answers on the area of law of this "
        "extract. Each answer names the issue, the rule, its application and the result. It should "
        "have more than 900 words.",
    },
)

CODE = Category(
    "an extract from source code or its documentation",
    {
        "beginners": "Your readers have learned to program for some weeks.",
        "students": "Your readers are computer science students who know one language well.",
        "engineers": "Your readers are working software engineers who are new to this technique.",
    },
    {
        "textbook": "Write a long unit of a programming textbook on a technique that this extract "
        "uses or would profit from. Explain the idea, develop a program of your own in small steps "
        "with complete, runnable code, and discuss correctness and cost. It should have more than "
        "1000 words, code included.",
        "tutorial": "Write a tutorial in which the reader builds something small that uses the "
        "ideas of this extract. Show all of the code, explain each part before it appears, and say "
        "how to try it out. It should have more than 800 words, code included.",
        "exercises": "Write five programming exercises inspired by this extract, of rising "
        "difficulty, each with a complete solution in code, an explanation, and tests that would "
        "catch a wrong solution. It should have more than 900 words, code included.",
        "review": "Write a code review as a mentor would give it: begin with a working but flawed "
        "program of your own on the subject of this extract, then improve it step by step and say "
        "why each change matters. It should have more than 800 words, code included.",
        "questions": "Write six questions that a learner would ask about code like this extract, "
        "each with a thorough answer and a short example in code. It should have more than 800 "
        "words, code included.",
    },
)

MATH = Category(
    "an extract from a mathematical text",
    {
        "children": _PUPILS,
        "school": _SCHOOL,
        "students": "Your readers are first-year university students of mathematics.",
        "olympiad": "Your readers prepare for mathematical competitions.",
    },
    {
        "textbook": "Write a long unit of a mathematics textbook on a concept behind this extract. "
        "Motivate it, define it, prove its main properties with every step given, and work "
        "through two examples. It should have more than 1000 words.",
        "problems": "Write six problems inspired by this extract, of rising difficulty, each with "
        "a complete solution: say first how one comes upon it, then carry it out, then check the "
        "result. It should have more than 900 words.",
        "tutorial": "Explain step by step how to solve a kind of problem that is related to this "
        "extract: how to recognise it, which way to choose, how to calculate, which mistakes are "
        "common. Work through three examples. It should have more than 800 words.",
        "dialogue": "Write a dialogue in which a tutor helps a pupil to find, by questions alone, "
        "the solution of a problem related to this extract. The pupil makes a natural mistake and "
        "finds it. It should have more than 700 words.",
        "story": "Write a story in which people need the mathematics of this extract to solve a "
        "real problem, with all the calculations written out and correct. It should have more than "
        "700 words.",
    },
)

CATEGORIES = {
    "web": WEB,
    "wiki": WIKI,
    "news": NEWS,
    "academic": ACADEMIC,
    "books": BOOKS,
    "law": LAW,
    "code": CODE,
    "math": MATH,
}

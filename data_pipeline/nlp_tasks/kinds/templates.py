"""The templates of tasks by kind, for the tasks of rules and of a teacher.

Each ends with {answer}. `rendering.py` selects one of them at random.
"""

from __future__ import annotations

from typing import NamedTuple

QUESTION_WITH_TEXT = (
    "Read the text and answer the question.\n\n{context}\n\nQuestion: {question}\nAnswer: {answer}",
    "{context}\n\nQ: {question}\nA: {answer}",
    "Passage: {context}\nQuestion: {question}\nAnswer: {answer}",
    "Use the following text to answer: {question}\n\nText: {context}\n\nAnswer: {answer}",
    "{context}\n\nAnswer from the text above. {question}\n\n{answer}",
    "Question: {question}\n\nWhat there is to read:\n{context}\n\nSo the answer is: {answer}",
    "User: {context}\n\n{question}\nAssistant: {answer}",
)
QUESTION_ALONE = (
    "Question: {question}\nAnswer: {answer}",
    "Q: {question}\nA: {answer}",
    "{question}\n\n{answer}",
    "Answer the question.\n\n{question}\n\nAnswer: {answer}",
    "User: {question}\nAssistant: {answer}",
    "Here is a question: {question}\nAnd this is its answer: {answer}",
)
WORKED_PROBLEM = (
    "Problem: {question}\nSolution: {answer}",
    "Solve the problem step by step.\n\n{question}\n\n{answer}",
    "{question} Let us work it out. {answer}",
    "User: {question}\nAssistant: {answer}",
    "Exercise: {question}\n\nWorked answer: {answer}",
    "Work out the following, and show how.\n{question}\n\n{answer}",
)
CODE = (
    "What does this function do?\n\n{code}\n\n{answer}",
    "{code}\n\nExplain in one sentence what `{name}` does.\n\n{answer}",
    "Write a comment for the following code.\n\n{code}\n\nComment: {answer}",
    "Code:\n{code}\n\nQuestion: What is `{name}` for?\nAnswer: {answer}",
    "Read the code.\n\n{code}\n\nIn a sentence, the purpose of `{name}`: {answer}",
    "User: What is this code for?\n\n{code}\nAssistant: {answer}",
)
NAME = (
    "Question: What does `{name}` do?\nAnswer: {answer}",
    "What is `{name}`?\n\n{answer}",
    "Explain `{name}` in one sentence.\n\n{answer}",
    "User: What is `{name}` for?\nAssistant: {answer}",
    "Look up `{name}`.\n\n{answer}",
    "`{name}` in one sentence: {answer}",
)

CHOICE_WITH_TEXT = (
    "{context}\n\n{question}\n{options}\nAnswer: {answer}",
    "Read the text and choose the correct answer.\n\n{context}\n\n{question}\n{options}\n\n"
    "The answer is {answer}",
    "Passage: {context}\n\nQuestion: {question}\n\n{options}\n\nCorrect answer: {answer}",
    "Question: {question}\n{options}\n\nThe text to go by:\n{context}\n\nAnswer: {answer}",
    "User: {context}\n\n{question}\n{options}\nAssistant: {answer}",
    "Text: {context}\nWhich option does the text support? {question}\n{options}\n{answer}",
)
CHOICE_ALONE = (
    "{question}\n{options}\nAnswer: {answer}",
    "Question: {question}\n\n{options}\n\nThe answer is {answer}",
    "Choose the correct answer.\n\n{question}\n{options}\nCorrect answer: {answer}",
    "User: {question}\n{options}\nAssistant: {answer}",
    "Only one of these is right. {question}\n\n{options}\n\nIt is {answer}",
    "Q: {question}\n{options}\nA: {answer}",
)
CHOICE_OF_WORD = (
    "{context}Which word completes the sentence?\n{sentence}\n{options}\nAnswer: {answer}",
    "{context}Choose the word that fits.\n\n{sentence}\n\n{options}\n\nThe answer is {answer}",
    "{context}{sentence}\n\nWhat is missing?\n{options}\nCorrect answer: {answer}",
    "{context}One of the words below belongs in the gap.\n{sentence}\n{options}\nIt is {answer}",
    "Fill the gap with one of the options.\n\n{context}{sentence}\n\n{options}\n\nAnswer: {answer}",
    "{context}{sentence}\nOptions:\n{options}\nThe word is {answer}",
)
CHOICE_OF_NEXT = (
    "Which sentence comes next?\n\n{context}\n\n{options}\n\nAnswer: {answer}",
    "{context}\n\nHow does the text go on?\n{options}\nAnswer: {answer}",
    "Read the beginning of a text and choose its continuation."
    "\n\n{context}\n\n{options}\n\nThe answer is {answer}",
    "{context}\n\nOne of these sentences follows.\n{options}\nIt is {answer}",
    "Beginning: {context}\nPossible continuations:\n{options}\nCorrect continuation: {answer}",
    "User: How does this go on?\n\n{context}\n\n{options}\nAssistant: {answer}",
)

CLOZE = (
    "Fill in the blank.\n\n{text}\n\nAnswer: {answer}",
    "Complete the text with what is missing.\n\n{text}\n\nMissing: {answer}",
    "{text}\n\nWhat belongs in the gap? {answer}",
    "In this passage something was left out:\n{text}\nIt is: {answer}",
    "Text: {text}\nBlank: {answer}",
    "User: What goes where the line is?\n\n{text}\nAssistant: {answer}",
)

SUMMARY = (
    "Summarize the text.\n\n{text}\n\nSummary: {answer}",
    "{text}\n\nIn short: {answer}",
    "Text: {text}\n\nMain point: {answer}",
    "Say briefly what the following text is about.\n\n{text}\n\n{answer}",
    "{text}\n\nThe gist of it: {answer}",
    "User: Sum this up for me.\n\n{text}\nAssistant: {answer}",
)
SUMMARY_IN_A_SENTENCE = (
    *SUMMARY,
    "Summarize the text in one sentence.\n\n{text}\n\nSummary: {answer}",
    "{text}\n\nIn one sentence: {answer}",
)
LEAD = (
    *SUMMARY_IN_A_SENTENCE,
    "Which sentence could introduce the following paragraph?\n\n{text}\n\n{answer}",
)
CONCLUSION = (
    "Read the abstract and state its conclusion.\n\n{text}\n\nConclusion: {answer}",
    "{text}\n\nWhat do the authors conclude?\n{answer}",
    "Abstract: {text}\n\nThe authors' conclusion: {answer}",
    "What follows from this study?\n\n{text}\n\n{answer}",
    "{text}\n\nIn conclusion: {answer}",
    "User: What do these results come down to?\n\n{text}\nAssistant: {answer}",
)

TITLE = (
    "Give the following text a title.\n\n{text}\n\nTitle: {answer}",
    "{text}\n\nWhat is a good heading for this passage?\n{answer}",
    "What is this text about? Answer with a heading.\n\n{text}\n\n{answer}",
    "Text: {text}\nTitle: {answer}",
    "Find a heading for the text below.\n\n{text}\n\nHeading: {answer}",
    "User: What would you call this?\n\n{text}\nAssistant: {answer}",
)
TEXT_OF_TITLE = (
    'Write a paragraph with the title "{title}".\n\n{answer}',
    "Topic: {title}\nText: {answer}",
    "Write a short passage about the topic below.\n\nTopic: {title}\n\n{answer}",
    "Title: {title}\n\n{answer}",
    'User: Write something under the heading "{title}".\nAssistant: {answer}',
    "What could stand below this heading?\n\n{title}\n\n{answer}",
)


class TrueFalseTemplate(NamedTuple):
    """A template, and its words for a true and for a false statement."""

    template: str
    yes: str
    no: str


TRUE_FALSE_WITH_TEXT = (
    TrueFalseTemplate("{context}\n\nTrue or false? {statement}\n{answer}", "True.", "False."),
    TrueFalseTemplate(
        "Read the text and judge the statement.\n\n{context}\n\nStatement: {statement}\n"
        "Is it true according to the text, and why? {answer}",
        "Yes.",
        "No.",
    ),
    TrueFalseTemplate(
        "Passage: {context}\nClaim: {statement}\nVerdict: {answer}", "True.", "False."
    ),
    TrueFalseTemplate(
        'Does the text say so? "{statement}"\n\nText: {context}\n\nAnswer, with a reason: {answer}',
        "Yes.",
        "No.",
    ),
    TrueFalseTemplate(
        "{context}\n\n{statement} Is this correct by what stands above? Give a reason.\n{answer}",
        "Correct.",
        "Incorrect.",
    ),
    TrueFalseTemplate(
        "User: {context}\n\nIs it true? {statement}\nAssistant: {answer}", "Yes.", "No."
    ),
)
TRUE_FALSE_ALONE = (
    TrueFalseTemplate("True or false? {statement}\n{answer}", "True.", "False."),
    TrueFalseTemplate("Statement: {statement}\nIs this correct, and why? {answer}", "Yes.", "No."),
    TrueFalseTemplate("Claim: {statement}\nVerdict: {answer}", "True.", "False."),
    TrueFalseTemplate(
        "Judge whether the statement is correct, and give a reason.\n\n{statement}\n\n{answer}",
        "Correct.",
        "Incorrect.",
    ),
    TrueFalseTemplate("User: Is it true? {statement}\nAssistant: {answer}", "Yes.", "No."),
    TrueFalseTemplate(
        "Is the following right or wrong?\n{statement}\nIt is {answer}",
        "right.",
        "wrong.",
    ),
)

PARAPHRASE = (
    "Say the same in other words.\n\n{sentence}\n\n{answer}",
    "Sentence: {sentence}\nParaphrase: {answer}",
    "Rewrite the sentence without changing what it says.\n\n{sentence}\n\nRewritten: {answer}",
    "{sentence}\n\nPut differently: {answer}",
    "How else could one say this?\n{sentence}\n{answer}",
    "User: Please rephrase this. {sentence}\nAssistant: {answer}",
)


class Listing(NamedTuple):
    """A template that requests a list, and the separator of the list's entries."""

    template: str
    separator: str


KEYWORDS = (
    Listing("List the keywords of the text.\n\n{text}\n\nKeywords: {answer}", ", "),
    Listing("{text}\n\nKey terms: {answer}", "; "),
    Listing("Which terms matter most in this text?\n\n{text}\n\n{answer}", ", "),
    Listing("Text: {text}\nTags: {answer}", ", "),
    Listing("Name the most important terms, one a line.\n\n{text}\n\n{answer}", "\n"),
    Listing("User: Which terms would you index this under?\n\n{text}\nAssistant: {answer}", ", "),
)

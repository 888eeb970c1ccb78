"""Lists of English words used by cleaning rules and task generation, each with its purpose."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Function words, which are frequent in sentences and rare in lists of names.
FUNCTION_WORDS = _words(
    """
    a an and are as at be been by can for from has have if in into is it its not of on or than
    that the their them then there these they this to was were when which who will with you your
    """
)

# Stop words, which carry no topic and fit almost anywhere, and the words of the task templates.
STOP_WORDS = _words(
    """
    about above after again against all almost along also although always among another any
    anything are around away back because been before being below between both but came can
    cannot come could did does doing done down during each either else enough even ever every
    everything first from further gave get give given gives goes going gone got had has have
    having her here hers herself him himself his how however into its itself just know last
    least less let like made make makes making many may maybe me might more most much must my
    myself neither never next none nor not nothing now off often once one ones only onto other
    others our ours out over own perhaps put quite rather really said same say says second see
    seem seems seen several shall she should since some someone something sometimes soon still
    such take than that the their theirs them themselves then there therefore these they thing
    things this those though three through thus together too took toward towards two under until
    upon use used uses using very want was way well went were what whatever when where whether
    which while who whole whom whose why will with within without would yes yet you your yours
    for and are was the its per via etc four five six seven eight nine ten
    answer belongs blank choose complete correct fill fits following missing passage question read
    sentence text word
    """
)

# First words of a sentence that depends on the sentence before it: pronouns and connectives.
CONTEXT_DEPENDENT = _words(
    """
    it its this that these those they their them he she his her him such here there then thus
    hence therefore however but and so or nor yet also another both others some we i you my our
    your moreover furthermore instead otherwise meanwhile additionally besides likewise
    similarly consequently accordingly still nevertheless nonetheless which who one first second
    third finally next again
    """
)

# Words that do not occur in the name of a defined thing: "The reason", "What follows",
# "Another case".
VAGUE = _words(
    """
    aim answer case difference example fact former goal idea last latter main method most number
    objective only other point problem purpose question reason rest result same solution thing
    time value what if when where who why how as on at with all each every no not by from here
    once note see above below before after although because since while whereas whether do does
    did is are in to for best worst good bad new old few many several any chapter section figure
    table below following
    """
)

# First words of a docstring that does not describe what the function does.
NO_EXPLANATION = _words(
    """
    author authors copyright date deprecated input like license note same see similar source
    todo version
    """
)

# Headings made only of these words do not describe the text below them.
GENERIC_TITLE = _words(
    """
    introduction abstract summary overview conclusion conclusions license licence installation
    usage contents table index references notes note see also background history discussion
    preface appendix rationale motivation acknowledgements acknowledgments copyright examples
    example features changelog documentation requirements description status contributing
    authors author support quickstart testing development results methods exercises exercise
    chapter section part details specification definition proof remarks
    """
)

# Words of phrases that are a judgment and not a definition: "A good ...", "the same ...",
# "a lot ...".
JUDGMENT = _words(
    """
    bad best better big bit case cases central common critical crucial difficult easy excellent
    example few first good great huge ideal important key large larger last latest little lot
    main major matter mistake more most must need next number only other part popular pretty
    primary problem question reason recent result right same second serious significant similar
    simple small subject useful variety very way ways well year years
    """
)

# Words that describe who a person is; such a statement does not define a term.
PERSON = _words(
    """
    actor actress author composer engineer founder inventor king lawyer leader minister officer
    painter philosopher player poet politician president professor queen singer writer
    """
)

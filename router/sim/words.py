"""The words that the toy language model speaks in, by what may follow what; and how they end up as text pieces."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


DETERMINERS = ("the", "a", "each", "this", "that", "one", "every", "some", "another", "our", "their", "its")
ADJECTIVES = _words(
    "old quiet small bright narrow patient heavy early distant simple warm careful northern hollow silver common "
    "steady open plain deep gentle broken early low great clear long empty green curious modest wooden"
)
NOUNS = _words(
    "river harbor lantern garden window letter engine mountain kettle island clock teacher bridge market river "
    "sailor ladder valley carpenter library road morning winter village machine candle orchard signal station "
    "writer forest child neighbor question answer number story water house paper light stone hand day year way "
    "world town field shore captain baker miller compass drawer corner evening summer chapter"
)
VERBS = _words(
    "carries follows watches holds finds remembers keeps crosses mends opens shows reaches turns leaves meets "
    "describes draws counts lifts answers passes gathers builds studies explains measures needs knows"
)
PREPOSITIONS = ("of", "in", "on", "under", "beyond", "near", "with", "from", "behind", "across", "before", "after")
ADVERBS = ("slowly", "often", "again", "early", "quietly", "almost", "never", "always", "soon", "rarely", "still")
COMMON = _words(  # not spoken, but frequent in prompts: they keep a prompt's tokens near four characters each
    "you are what is which how who why when where your please user assistant system helpful and to for it as be by "
    "not or if can will would should could do does did has have had but an at we they he she him her them was were "
    "been being there here then than so up down out about into over only more most other also no yes all any both "
    "few many much such same own very just because while during write read make give take tell say said use using "
    "answer list name count repeat exactly word words line lines text code file function return class def import "
    "test run data model value first last next end number times end with this following example json object key "
    "string true false none null message messages role content tool tools city weather summary title chat history "
    "think about explain describe between against through after before again people time good new now know like"
)

SPOKEN = tuple(dict.fromkeys((*DETERMINERS, *ADJECTIVES, *NOUNS, *VERBS, *PREPOSITIONS, *ADVERBS)))
PIECES = tuple(dict.fromkeys((*SPOKEN, *COMMON)))

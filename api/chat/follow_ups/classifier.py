"""Classifies a message of a chat with earlier pictures: a change of one of them, or a new picture.

Every kind of evidence counts once, with the largest weight of its rules. The sum decides: above 0 is a change. Without
evidence a message asks for a new picture. Measured in tests/unit/api/chat/follow_ups/test_accuracy.py.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from api.chat.follow_ups.phrases import Language, Rule, languages, simplified
from api.chat.follow_ups.pictures import QUOTED

# Most messages change nothing unless they say so.
_BIAS = -1.0
_CONTINUATION = 0.8
_LATER_CLAUSE = 0.6
_OTHER_CLAUSE = -0.7
_MAX_OTHER_CLAUSES = 3
# Long texts describe whole scenes: the number of words and the weight.
_LENGTHS = ((60, -2.0), (30, -1.2), (16, -0.6))
_MAX_SEARCHED = 1000
_LATIN = ("en", "es", "fr", "de", "pt", "it")
_SCRIPTS = {
    "zh": re.compile(r"[\u3400-\u9fff]"),
    "ja": re.compile(r"[\u3040-\u30ff]"),
    "ko": re.compile(r"[\uac00-\ud7af\u1100-\u11ff]"),
    "ru": re.compile(r"[\u0400-\u04ff]"),
    "ar": re.compile(r"[\u0600-\u06ff]"),
}
_CJK = re.compile(r"[\u3400-\u9fff\u3040-\u30ff]")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_FLAG = re.compile(r"(?<!\S)-{1,2}(?:re|ra|d|ar|v|s|q)\s+\S+|\[\[[^\[\]]*\]\]")
_CLAUSE_END = re.compile(r"[.,](?=\s|$)|[;!?。，、；！？…\n—]+|(?<=\s)[-–](?=\s)")
# The Arabic article, and Korean particles.
_AFFIX = re.compile(
    r"^(?:وال|بال|كال|فال|لل|ال)(?=\w{2})|(?<=[\uac00-\ud7af])(?:에서|으로|에게|하는|을|를|이|가|은|는|의|에|도|와|과|로|만)$"
)

REASONS = {
    "picture": "the message names an earlier picture",
    "pronoun": "the message refers back to an earlier picture",
    "operation": "the message asks for an operation on a picture",
    "comparison": "the message compares with an earlier picture",
    "omission": "the message says what to keep or leave out",
    "known": "the message names what an earlier picture shows",
    "setting": "the message gives only another setting, style or detail",
    "criticism": "the message comments on an earlier picture",
    "repeat": "the message asks for another version",
    "creation": "the message asks for a picture of its own",
    "article": "the message introduces a subject of its own",
    "restart": "the message asks for a new picture",
    "description": "the message describes a whole picture",
    "": "nothing in the message refers to an earlier picture",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a message changes an earlier picture, the evidence that weighs most, and the sum."""

    is_edit: bool
    reason: str
    score: float


def classify(text: str, earlier: Sequence[str]) -> Verdict:
    """Return the verdict on a message. `earlier` = the texts that the earlier pictures were made from, newest first."""
    message, shown = normalize(text), [normalize(one) for one in earlier]
    evidence: dict[str, float] = {}
    for language in languages_of(message, shown):
        for kind, weight in _evidence(message, shown, language):
            if abs(weight) > abs(evidence.get(kind, 0.0)):
                evidence[kind] = weight
    words = count_words(message)
    length = next((weight for limit, weight in _LENGTHS if words >= limit), 0.0)
    score = _BIAS + length + sum(evidence.values())
    is_edit = score > 0
    named = {kind: weight for kind, weight in evidence.items() if kind in REASONS and (weight > 0) == is_edit}
    strongest = max(named, key=lambda kind: abs(named[kind])) if named else ""
    return Verdict(is_edit=is_edit, reason=REASONS[strongest], score=score)


def normalize(text: str) -> str:
    """Return a text as the rules read it: lower case, simplified Chinese, no quotations and no flags."""
    plain = unicodedata.normalize("NFKC", text[:_MAX_SEARCHED]).replace("’", "'").translate(simplified())
    plain = QUOTED.sub(' "" ', _FLAG.sub(" ", plain)).lower().strip()
    return plain.replace(",", "，") if _CJK.search(plain) else plain


def count_words(text: str) -> float:
    """Return the number of words; two Chinese or Japanese characters count as one."""
    return len(_WORD.findall(_CJK.sub(" ", text))) + len(_CJK.findall(text)) / 2


def languages_of(message: str, earlier: Sequence[str]) -> list[Language]:
    """Return the languages whose rules apply: by script, and by frequent words for Latin script."""
    known = languages()
    found = [name for name, script in _SCRIPTS.items() if script.search(message)]
    if found == ["zh"] and any(_SCRIPTS["ja"].search(text) for text in earlier):
        found.append("ja")
    if "ja" in found and found[0] == "zh" and _SCRIPTS["ja"].search(message):
        found.remove("zh")
    rest = _CJK.sub(" ", message)
    if re.search(r"[a-zà-ž]{2}", rest) or not found:
        found += _latin_languages(rest, earlier)
    return [known[name] for name in found if name in known]


def _latin_languages(message: str, earlier: Sequence[str]) -> list[str]:
    scores = _language_scores(message)
    if not any(scores.values()):
        context = _language_scores(" ".join(earlier))
        best = max(context.values())
        return list(dict.fromkeys((*(n for n in _LATIN if best and context[n] == best), "en")))
    best = max(scores.values())
    return [name for name in _LATIN if scores[name] == best]


def _language_scores(text: str) -> dict[str, int]:
    known, tokens = languages(), set(_WORD.findall(text))
    return {name: len(tokens & known[name].words) if name in known else 0 for name in _LATIN}


def _evidence(message: str, earlier: Sequence[str], language: Language) -> Iterable[tuple[str, float]]:
    clauses, continues = _split_clauses(message, language)
    if continues:
        yield "continuation", _CONTINUATION
    shown = _Shown(earlier, language)
    spoken: set[int] = set()
    for place, rules in language.rules.items():
        texts = {"anywhere": [message], "start": clauses[:1], "clause": clauses}[place]
        for number, text in enumerate(texts):
            words = count_words(text if place == "clause" else message)
            for rule in rules:
                match = _find(rule, place, text) if words <= rule.max_words else None
                if match is not None:
                    spoken.add(number)
                    yield rule.kind, _weight(rule, match, shown) * (_LATER_CLAUSE if number else 1.0)
    # Clauses without a reference to a picture are parts of a description.
    if others := len(clauses) - len(spoken | {0}):
        yield "description", _OTHER_CLAUSE * min(others, _MAX_OTHER_CLAUSES)


def _find(rule: Rule, place: str, text: str) -> re.Match[str] | None:
    return rule.pattern.search(text) if place == "anywhere" else rule.pattern.match(text)


def _weight(rule: Rule, match: re.Match[str], shown: "_Shown") -> float:
    if rule.weight == rule.known_weight:
        return rule.weight
    groups = match.groupdict()
    is_known = shown.has(groups.get("noun") or "") or shown.has_subject(groups.get("subject") or "")
    return rule.known_weight if is_known else rule.weight


def _split_clauses(message: str, language: Language) -> tuple[list[str], bool]:
    """Return the clauses without lead-ins and remarks, and whether the first one continues a conversation."""
    clauses: list[str] = []
    continues = False
    for part in _CLAUSE_END.split(message):
        clause = part.strip()
        if language.remark.fullmatch(clause):
            continues = True
            continue
        while clause and (match := language.lead_in.match(clause)) and match.end():
            continues |= not clauses and bool(language.continuation.match(clause))
            clause = clause[match.end() :].strip()
        if clause:
            clauses.append(language.tail.sub("", clause) or clause if language.tail else clause)
    return clauses, continues


class _Shown:
    """What the earlier pictures show, as far as their prompts say, and the parts that every picture has."""

    def __init__(self, earlier: Sequence[str], language: Language) -> None:
        self._language = language
        self._text = " ".join(earlier)
        self._words = [word for word in map(_stem, _WORD.findall(self._text)) if self._names_something(word)]

    def _names_something(self, word: str) -> bool:
        return len(word) > 1 and word not in self._language.stop_words

    def has(self, noun: str) -> bool:
        """Return whether a noun phrase names something of the earlier pictures, or a part of any picture."""
        if not noun.strip():
            return False
        if any(language.part.search(noun) for language in languages().values()):
            return True
        cjk = "".join(_CJK.findall(noun))
        return self.has_subject(noun) or bool(cjk and cjk[-1] in self._text)

    def has_subject(self, noun: str) -> bool:
        """Return whether a noun phrase names something that the prompts name; at least two Chinese characters."""
        cjk = "".join(_CJK.findall(noun))
        if any(cjk[n : n + 2] in self._text for n in range(len(cjk) - 1)):
            return True
        words = [word for word in map(_stem, _WORD.findall(_CJK.sub(" ", noun))) if self._names_something(word)]
        return any(_is_same_word(word, other) for word in words for other in self._words)


def _stem(word: str) -> str:
    return _AFFIX.sub("", word)


def _is_same_word(word: str, other: str) -> bool:
    """Return whether two words share their stem: at most three letters at the end differ."""
    short, long = sorted((word, other), key=len)
    if len(short) <= 3:
        return long.startswith(short) and len(long) - len(short) <= (2 if not short.isascii() else 1)
    common = next((n for n, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    return common >= max(4 if short.isascii() else 3, len(long) - 3)

"""When two values mean the same class: spelling, numbers, booleans, and names that only look alike."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.class_names import ClassNames, class_key, difference, near_groups, spelling, visible
from rayclean.errors import ConfigError

NBSP, ZWSP, ZWNJ, ZWJ, BOM, SHY, RLM = "\u00a0", "\u200b", "\u200c", "\u200d", "\ufeff", "\u00ad", "\u200f"


@pytest.mark.parametrize(
    "written",
    [
        "credit card",
        "  credit card\t",
        "credit  card",
        f"credit{NBSP}card",
        "credit\u3000card",  # the blank of Japanese typing
        "credit\u2009\u202fcard",
        "credit\r\ncard",
        f"{BOM}credit card",
        f"cre{SHY}dit card",
        f"credit{ZWSP} card{ZWSP}",
        f"{RLM}credit card\u202c",
        f"credit{ZWNJ} c{ZWJ}ard",
        "credit card\x00\x00",  # the filling of fixed-length fields
        "credit\u2060 card\U000e0041",  # word joiner; a tag character outside of any flag
        "credit\u3164card",  # Hangul filler
    ],
)
def test_what_is_written_like_credit_card_is_credit_card(written):
    assert spelling(written) == class_key(written) == "credit card"


@pytest.mark.parametrize(
    "kept",
    [
        f"\U0001f468{ZWJ}\U0001f469{ZWJ}\U0001f467",  # family
        f"\U0001f469\U0001f3fd{ZWJ}\U0001f680",  # astronaut with a colour of skin
        f"\u2764\ufe0f{ZWJ}\U0001f525",  # heart on fire
        f"\U0001f3f3\ufe0f{ZWJ}\U0001f308",  # rainbow flag
        "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # flag of Scotland
        f"\u0645\u06cc{ZWNJ}\u062e\u0648\u0627\u0647\u0645",  # Persian: "I want"
        f"\u0995\u09cd{ZWNJ}\u09b7",  # Bengali: a visible virama
        f"\u0dc1\u0dca{ZWJ}\u0dbb\u0dd3",  # Sinhala: "sri"
        "NA",
        "None",
        "nan",
        "null",
        "007",
        "=1+1",
        "[/INST]",
        "a,b \"q\"",
    ],
)  # fmt: skip
def test_what_has_a_meaning_stays(kept):
    assert spelling(kept) == class_key(kept) == kept


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("1", "1"),
        ("1.0", "1"),
        (" +1.00 ", "1"),
        ("1.", "1"),
        ("-1.0", "-1"),
        ("-0.0", "0"),
        ("TRUE", "true"),
        ("False", "false"),
        ("01", "01"),
        ("1.5", "1.5"),
        ("1,0", "1,0"),
        ("1e3", "1e3"),
        ("\u0661", "\u0661"),  # an Arabic digit
        ("yes", "yes"),
        ("True story", "True story"),
        ("12345678901234567890.0", "12345678901234567890.0"),  # no float holds it
        (f"{ZWSP} ", ""),
    ],
)
def test_numbers_and_booleans_have_one_key(written, key):
    assert class_key(written) == key


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=12))
def test_a_spelling_is_in_nfc_and_stays_as_it_is(text):
    found = spelling(text)
    assert spelling(found) == found
    assert unicodedata.is_normalized("NFC", found)
    assert found == " ".join(found.split())
    assert class_key(class_key(text)) == class_key(text) == class_key(found)


HIDDEN = st.sampled_from([ZWSP, BOM, SHY, RLM, "\u2066", "\u2069", "\u0000"])


@given(
    st.text("abcéßЖж的 12", min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 8), HIDDEN), max_size=4),
)
def test_hidden_characters_and_forms_of_unicode_change_no_class(text, hidden):
    written = unicodedata.normalize("NFD", text)
    for position, character in hidden:
        written = written[:position] + character + written[position:]
    assert spelling(f" {written}\u2003") == spelling(text)


@pytest.mark.parametrize(
    ("one", "other", "by"),
    [
        ("Spam", "SPAM", "case"),
        ("stra\u00dfe", "STRASSE", "case"),
        ("cafe", "caf\u00e9", "accents"),
        ("\u0416\u0435\u0301", "\u0436\u0435", "accents"),
        ("07", "7", "zeros around the number"),
        ("1.50", "1.5", "zeros around the number"),
        ("3.10", "3.11", None),
        ("10", "1", None),
        ("-1", "1", None),
        ("paypal", "p\u0430ypal", "characters that look alike .U.0430 CYRILLIC SMALL LETTER A."),
        ("HOTEL", "\u039dOTEL", None),  # a Greek Nu looks like N
        ("BETA", "\u0392\u0395\u03a4\u0391", "characters that look alike .U.0391 GREEK CAPITAL LETTER ALPHA"),
        ("e-mail", "e\u2011mail", "characters that look alike .U.2011 NON-BREAKING HYPHEN."),
        ("don't", "don\u2019t", "characters that look alike"),
        ("\uff21\uff22", "AB", "accents"),  # full width
        ("heart \u2764", "heart \u2764\ufe0f", "invisible characters"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u062e", "invisible characters"),
        ("credit card", "credit_card", "hyphens, underscores, blanks or punctuation"),
        ("credit-card", "Credit_Card", "hyphens, underscores, blanks or punctuation"),
        ("billing", "Billing.", "hyphens, underscores, blanks or punctuation"),
        ("billing", "'billing'", "hyphens, underscores, blanks or punctuation"),
        ("1,000", "1000", "hyphens, underscores, blanks or punctuation"),
        ("A", "A-", None),  # grades
        ("C", "C++", None),
        (":)", ";)", None),
        ("\u2026", "?", None),
        ("1,5", "15", None),
        ("-1", "1.", None),
        ("class 1", "class 11", None),
        ("ham", "spam", None),
        ("\u0438\u0434\u0442\u0438", "ugmu", None),  # only in italics
        ("\u0915\u093f", "\u0915\u0947", None),  # vowel signs are no accents
        ("\u304b", "\u304c", None),  # nor are those of kana
    ],
)  # fmt: skip
def test_names_that_a_reader_takes_for_each_other(one, other, by):
    assert near_groups([one, other]) == ([[one, other]] if by else [[one], [other]])
    if by:
        assert re.match(by, difference(one, other))
        assert ClassNames([one]).find(other) == 0
    assert ClassNames([one]).index(other) is None


def test_groups_are_linked_over_a_third_name():
    cyrillic = "\u0441\u043e\u0440"  # looks like "cop"
    capitals = cyrillic.upper()
    assert near_groups(["cop", capitals, "x", cyrillic]) == [["cop", capitals, cyrillic], ["x"]]
    # the link comes last: "caf\u00e9" is near both
    assert near_groups([capitals, "cap", cyrillic]) == [[capitals, cyrillic], ["cap"]]


def test_a_name_is_looked_up_as_data_and_as_a_person_writes_it():
    names = ClassNames(["Ham", "1", "US", "us"])
    assert [names.index(value) for value in ("Ham ", "ham", "1.0", "us", "Us")] == [0, None, 1, 3, None]
    assert [names.find(value) for value in ("ham", "US", "Us", "01", "eggs")] == [0, 2, None, 1, None]
    assert ClassNames(["Ham"], merge=True).index("HAM") == 0
    with pytest.raises(
        ConfigError, match=r"dataset\.words: unknown label 'hma'; did you mean Ham\? known: 1, Ham, US, us"
    ):
        names.require("hma", "dataset.words")


def test_what_cannot_be_seen_is_shown():
    assert [visible(value) for value in (f"a{NBSP}b", f"a{ZWSP}", "\u00e9", "e\u0301")] == [
        r"'a\xa0b'", r"'a\u200b'", "'\u00e9'", r"'e\u0301'",
    ]  # fmt: skip
    assert len(visible("x" * 100_000)) < 200

"""The search of the documentation: English words by their stems, and Chinese by single characters and pairs of them.

Sphinx cuts texts at blanks, so a Chinese sentence would be one word that nobody asks for. Here a run of Chinese
characters is put into the index as its characters and as each two that stand side by side. A query is cut into pairs
likewise, and a page is found if it has all of them. No dictionary is needed, and no word is unknown.

Simplified and traditional characters find each other. OpenCC says which characters are forms of one another; the index
and the query hold one form of each, so 網頁 and 网页 are the same word.
"""

from __future__ import annotations

import functools
import re

import opencc
from sphinx.search.en import SearchEnglish

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_PARTS = re.compile(rf"[{_HAN}]+|[^\W{_HAN}]+")


@functools.cache
def forms() -> dict[int, str]:
    """Return the form that stands for each Chinese character of several, by code point, as `str.translate` takes it.

    Characters are forms of one another if OpenCC converts one to the other, in either direction, or both to a third.
    """
    one = {}  # each character to the one that stands for it, or to one nearer to that

    def standing(character: str) -> str:
        while one.get(character, character) != character:
            character = one[character]
        return character

    for name in ("t2s", "tw2s", "hk2s", "s2t"):
        convert = opencc.OpenCC(name).convert
        for code in (*range(0x3400, 0x4DC0), *range(0x4E00, 0xA000)):
            character = chr(code)
            other = convert(character)
            if len(other) == 1 and re.match(f"[{_HAN}]", other):
                one[standing(character)] = standing(other)
    return {ord(each): standing(each) for each in one if standing(each) != each}


def _joined_forms() -> str:
    """Return JavaScript that makes the page's stemmer put one form for each Chinese character."""
    pairs = "".join(chr(code) + form for code, form in sorted(forms().items()))
    return f"""
const FORMS = new Map("{pairs}".match(/../gu).map((pair) => [...pair]));
const WithoutForms = window.Stemmer;
window.Stemmer = function () {{
  const stemmer = new WithoutForms();
  this.stemWord = (word) => stemmer.stemWord([...word].map((each) => FORMS.get(each) ?? each).join(""));
}};
"""


class EnglishAndChinese(SearchEnglish):
    """Sphinx's search for English, which finds Chinese too."""

    lang = "en"
    language_name = "English"  # the stemmer of the page is called so
    js_splitter_code = (
        """
function splitQuery(query) {
  const found = [];
  for (const part of query.match(/[HAN]+|[^\\s\\p{P}\\p{S}HAN]+/gu) ?? []) {
    if (!/^[HAN]/.test(part) || part.length < 2) found.push(part);
    else for (let n = 0; n + 1 < part.length; n++) found.push(part.slice(n, n + 2));
  }
  return found;
}
""".replace("HAN", _HAN)
        + _joined_forms()
    )

    def stem(self, word: str) -> str:
        """Return the stem of an English word, and a Chinese one in the forms that stand for others."""
        return super().stem(word.translate(forms()))

    def split(self, input: str) -> list[str]:
        """Return the words of a text, and of each run of Chinese its characters and pairs."""
        found: list[str] = []
        for part in _PARTS.findall(input):
            if re.match(rf"[{_HAN}]", part):
                found += [*part, *(part[n : n + 2] for n in range(len(part) - 1))]
            else:
                found.append(part)
        return found

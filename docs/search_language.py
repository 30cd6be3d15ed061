"""The search of the documentation: English words by their stems, and Chinese by single characters and pairs of them.

Sphinx cuts texts at blanks, so a Chinese sentence would be one word that nobody asks for. Here a run of Chinese
characters is put into the index as its characters and as each two that stand side by side. A query is cut into pairs
likewise, and a page is found if it has all of them. No dictionary is needed, and no word is unknown.
"""

from __future__ import annotations

import re

from sphinx.search.en import SearchEnglish

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_PARTS = re.compile(rf"[{_HAN}]+|[^\W{_HAN}]+")


class EnglishAndChinese(SearchEnglish):
    """Sphinx's search for English, which finds Chinese too."""

    lang = "en"
    language_name = "English"  # the stemmer of the page is called so
    js_splitter_code = """
function splitQuery(query) {
  const found = [];
  for (const part of query.match(/[HAN]+|[^\\s\\p{P}\\p{S}HAN]+/gu) ?? []) {
    if (!/^[HAN]/.test(part) || part.length < 2) found.push(part);
    else for (let n = 0; n + 1 < part.length; n++) found.push(part.slice(n, n + 2));
  }
  return found;
}
""".replace("HAN", _HAN)

    def split(self, input: str) -> list[str]:
        """Return the words of a text, and of each run of Chinese its characters and pairs."""
        found: list[str] = []
        for part in _PARTS.findall(input):
            if re.match(rf"[{_HAN}]", part):
                found += [*part, *(part[n : n + 2] for n in range(len(part) - 1))]
            else:
                found.append(part)
        return found

"""The project's documents as tests read them: pages by their path, and the blocks, code and tables of a page.

A block is what stands between two fences; code is the text of all blocks and of all spans between backticks.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PUBLIC = ROOT / "service/public"
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str | None = None) -> list[str]:
    """The blocks of a page, or those in one language; ``""`` is that of a block that names none."""
    return [found["text"] for found in _BLOCK.finditer(PAGES[page]) if language is None or found["language"] == language]


def every_block(language: str) -> list[tuple[str, str]]:
    """(page, block) of all pages."""
    return [(page, block) for page in PAGES for block in blocks(page, language)]


def prose(page: str) -> str:
    """The page without its blocks."""
    return _BLOCK.sub("", PAGES[page])


def spans(page: str) -> list[str]:
    """The code between backticks in a page's prose."""
    return [" ".join(span.replace("\\|", "|").split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def code_lines(page: str) -> list[str]:
    """The lines of blocks without what is commented, a continued one joined to its first; and every span."""
    lines = "\n".join(blocks(page)).replace("\\\n", " ").splitlines()
    return [re.sub(r"(^|\s+)#.*", "", line) for line in lines] + spans(page)


def section(page: str, heading: str) -> str:
    """The text below a heading, up to the next one of its level or above."""
    level, text = re.split(rf"^(#+) {re.escape(heading)}$", PAGES[page], flags=re.MULTILINE)[1:]
    return re.split(rf"^#{{1,{len(level)}}} ", text, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the tables in a text, without their heads."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if re.fullmatch(r"\|[ -|]*-[ -|]*", line) and set(line) <= set("|- "):
            found.pop()
        elif line.startswith("|"):
            found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def names(text: str) -> list[str]:
    """The code between backticks in a cell or a paragraph."""
    return re.findall(r"`([^`]+)`", text)


def is_defined(dotted: str) -> bool:
    """Whether a dotted name is a module or package of the project, or a name that stands in one; nothing is imported."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        place = (PUBLIC if parts[0] == "stillhouse" else ROOT).joinpath(*parts[:length])
        source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if source.exists():
            rest = parts[length:]
            return not rest or (len(rest) == 1 and rest[0] in _names_of(source))
    return False


def _names_of(source: Path) -> set[str]:
    found: set[str] = set()
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for node in [*tree.body, *(inner for block in tree.body if isinstance(block, ast.If) for inner in block.body)]:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found

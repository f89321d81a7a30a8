"""A preview for the terminal: what each network reads, with the tokens that count marked."""

from rich.text import Text

from service.cli.terminal import err, out
from service.spec.preview import Preview, PreviewedSample, Read, ReadImage, ReadSound, ReadText

_COUNTS, _SECOND = "bold green", "cyan"


def show_preview(preview: Preview) -> None:
    """Prints it; tokens that count for the loss are bold and green, and between brackets where there are no colours."""
    for warning in preview.warnings:
        err.print("warning: ", style="yellow", end="")
        err.print(warning.message, markup=False)
    for role, samples in preview.samples.items():
        out.print(f"\n{role}", style="bold")
        for sample in samples:
            out.print(f"\n  {_facts(sample)}", markup=False)
            out.print(Text("  ").append_text(_read(sample.read)))


def _facts(sample: PreviewedSample) -> str:
    facts = [sample.place]
    facts += [f"{name}: {_label(label)}" for name, label in sample.labels.items()]
    if sample.weight is not None:
        facts.append(f"weight {sample.weight:g}")
    if sample.mixed_with is not None and sample.share is not None:
        facts.append(f"{1 - sample.share:.0%} of it is {sample.mixed_with}")
    return "; ".join(facts)


def _label(label: object) -> str:
    if isinstance(label, dict):
        return ", ".join(f"{name} {share:.3g}" for name, share in label.items())
    if isinstance(label, list):
        return " ".join("–" if each is None else str(each) for each in label) or "none of the classes"
    return "no label" if label is None else f"{label:g}" if isinstance(label, float) else str(label)


def _read(read: Read) -> Text:
    match read:
        case ReadImage():
            sides = "×".join(map(str, read.shape))
            return Text(f"image {sides}, values {read.lowest:.3g} to {read.highest:.3g}")
        case ReadSound():
            sides = "×".join(map(str, read.shape))
            return Text(f"sound of {read.seconds:.2f} s at {read.rate:,} Hz, read as {sides}")
        case ReadText():
            return _tokens(read)


def _tokens(read: ReadText) -> Text:
    """Tokens one after the other, with a bar between them, and their number."""
    shown = Text()
    for token in read.tokens:
        text = f"[{token.text}]" if token.counts and not out.is_terminal else token.text
        style = _COUNTS if token.counts else _SECOND if token.type else ""
        shown.append(text.replace("\n", "⏎"), style=style).append("|", style="dim")
    counted = sum(token.counts for token in read.tokens)
    return shown.append(f" {len(read.tokens)} tokens" + (f", {counted} count" if counted else ""), style="dim").append(
        f", and {read.unshown} more" if read.unshown else "", style="dim"
    )

"""The datasets that come with the service, named ``builtin:NAME`` in a spec. Static: a test compares them with the real data."""

from dataclasses import dataclass

from service.spec.data import Column, DatasetInfo


@dataclass(frozen=True)
class BuiltinDataset:
    """The entry of a built-in dataset in ``GET /v1/builtin-datasets``."""

    summary: str
    origin: str
    licence: str
    info: DatasetInfo


def _label(classes: list[str], class_counts: dict[str, list[int]]) -> Column:
    return Column(kind="label", dtype="int64", num_classes=len(classes), classes=classes, class_counts=class_counts)


_DIGIT = _label(
    [str(digit) for digit in range(10)],
    {
        "train": [124, 128, 124, 128, 127, 128, 127, 125, 122, 126],
        "validation": [18, 18, 18, 18, 18, 18, 18, 18, 17, 18],
        "test": [36, 36, 35, 37, 36, 36, 36, 36, 35, 36],
    },
)
_PARITY = _label(["even", "odd"], {"train": [624, 635], "validation": [89, 90], "test": [178, 181]})
_LANGUAGE = _label(
    ["English", "Finnish", "French", "German", "Hungarian", "Polish", "Spanish", "Turkish"],
    {"train": [420] * 8, "validation": [60] * 8, "test": [120] * 8},
)
_KIND = _label(
    ["currency", "language", "territory"],
    {"train": [1344, 1400, 616], "validation": [192, 200, 88], "test": [384, 400, 176]},
)

BUILTIN_DATASETS: dict[str, BuiltinDataset] = {
    "digits": BuiltinDataset(
        summary=(
            "1,797 handwritten digits, scanned and reduced to 8x8 pixels of 17 grey values, "
            "in fixed splits for training, validation and test, stratified by class"
        ),
        origin="Alpaydin, Kaynak: Optical Recognition of Handwritten Digits, UCI Repository, 1998, doi:10.24432/C50P49",
        licence="CC BY 4.0",
        info=DatasetInfo(
            task="image-classification",
            splits={"train": 1259, "validation": 179, "test": 359},
            columns={
                "image": Column(kind="image", dtype="uint8", shape=[8, 8, 1]),
                "label": _DIGIT,
                "parity": _PARITY,
            },
            classes=_DIGIT.classes or [],
            class_counts=_DIGIT.class_counts or {},
        ),
    ),
    "languages": BuiltinDataset(
        summary=(
            "4,800 names of currencies, languages and territories in eight languages of Latin script, to tell the language and "
            "what it is the name of, in fixed splits for training, validation and test, stratified by both"
        ),
        origin="Unicode Common Locale Data Repository (CLDR), as Babel has it, cldr.unicode.org",
        licence="Unicode-3.0",
        info=DatasetInfo(
            task="text-classification",
            splits={"train": 3360, "validation": 480, "test": 960},
            columns={"text": Column(kind="text", dtype="string"), "label": _LANGUAGE, "kind": _KIND},
            classes=_LANGUAGE.classes or [],
            class_counts=_LANGUAGE.class_counts or {},
        ),
    ),
}

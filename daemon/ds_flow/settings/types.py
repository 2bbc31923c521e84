"""The types of settings, and which values each type refuses."""

import codecs
import re
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from ds_flow.core import (
    LOCAL,
    TEMPORARY,
    Marker,
    Timetable,
    compiled,
    is_hostile,
    known_zone,
    split,
)

DAY_SECONDS = 86_400
YEAR_MINUTES = 525_600
LONGEST_DAYS = 36_500
PATH_CHARACTERS = 1000
PORTS = 65_536
OCTAL = re.compile(r"\s*[-+]?0[0-7_]+\s*")
ACCENTED = "Zoë, José, Søren, Müller, 12 €"  # more bytes than characters in any Unicode encoding
SELECTIONS = ("all", "failed", "since_last")


def _plain(text: str) -> str:
    if is_hostile(text):
        raise ValueError("contains a control character, or one that cannot be encoded")
    return text


def _path(path: str) -> str:
    if path.startswith("~"):
        raise ValueError("`~` is not expanded; write the whole path")
    return path


def _pattern(pattern: str) -> str:
    name = pattern.rpartition("/")[2]
    if name in {"", ".", "..", "**"}:
        raise ValueError(
            "names no file; end it with a pattern for file names, such as `data/*.csv`"
        )
    if any(TEMPORARY.fullmatch(glob) for glob in split(pattern)[1]):
        raise ValueError(
            "names hidden or temporary files (.x *.tmp *.part *~ ~$*), which never match"
        )
    return pattern


def _marker(text: str) -> str:
    if text:
        Marker.parse(text)
    return text


def _set_expression(by: str) -> str:
    compiled(by)
    return by


def _encodings(given: Any) -> str | tuple[str, ...]:
    """Take one encoding, or a list of some, of which each has a chance to be used."""
    if isinstance(given, str):
        return _encoding(given)
    if not isinstance(given, list | tuple) or not given:
        raise ValueError("should be a text encoding, or a list of some")
    names = tuple(map(_encoding, given))
    for place, name in enumerate(names):
        if hiding := [one for one in names[:place] if _hides(one, name)]:
            raise ValueError(f"{hiding[0]} would read text in {name}, too; put {name} before it")
    return names if names[1:] else names[0]


def _encoding(name: Any) -> str:
    try:
        "".encode(name)
    except (LookupError, ValueError, TypeError):
        raise ValueError(f"unknown text encoding {name!r}") from None
    return str(name).lower()


def _hides(first: str, name: str) -> bool:
    """Whether an encoding takes any bytes, or text in another one, which it reads wrongly."""
    is_unicode = codecs.lookup(name).name.startswith("utf")
    sample = ACCENTED.encode(name) if is_unicode else bytes(range(256))
    try:
        return sample.decode(first).lstrip("\ufeff") != ACCENTED
    except UnicodeError:
        return False


def _delimiter(delimiter: str) -> str:
    return "\t" if delimiter in {"tab", r"\t"} else delimiter


def _transform(spec: str) -> str:
    module, colon, function = spec.partition(":")
    if not (colon and all(part.isidentifier() for part in [*module.split("."), function])):
        raise ValueError("should be `module:function`")
    return spec


def _webhook(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("should be an address such as https://host/path")
    return address


def _listen(place: str) -> str:
    if place.startswith("/"):
        return place
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < PORTS:
        raise ValueError("should be HOST:PORT, such as 127.0.0.1:8321, or the path of a socket")
    return place


def _address(text: str) -> str:
    if not re.fullmatch(r"[^\s@<>,;:\"()\\]{1,64}@[^\s@<>,;:\"()\\]{1,190}", text):
        raise ValueError("should be an address such as team@example.org, without a name")
    return text


def _argument(text: str) -> str:
    if re.search("[\0\ud800-\udfff]", text):
        raise ValueError("contains a character that a command line cannot contain")
    return text


def _cron(cron: str) -> str:
    Timetable(cron)
    return cron


def _zone(zone: str) -> str:
    if zone != LOCAL:
        known_zone(zone)
    return zone


def _selection(select: str) -> str:
    if select not in SELECTIONS and not re.search("[/*?[]", select):
        words = ", ".join(SELECTIONS)
        raise ValueError(f"should be {words} or a pattern, such as `data/student_a*.csv`")
    return select


# Bounds stand right after the type. After a validator, they would not reach the JSON Schema.
Number = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[Number, Field(gt=0, le=DAY_SECONDS)]
Minutes = Annotated[Number, Field(gt=0, le=YEAR_MINUTES)]
Count = Annotated[int, Field(ge=1)]
Days = Annotated[Number, Field(gt=0, le=LONGEST_DAYS)]
Text = Annotated[str, AfterValidator(_plain)]
Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_plain)]
ColumnName = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_plain)]
PathText = Annotated[
    str,
    Field(min_length=1, max_length=PATH_CHARACTERS),
    AfterValidator(_plain),
    AfterValidator(_path),
]
Argument = Annotated[str, AfterValidator(_argument)]
Command = tuple[Argument, ...]
Pattern = Annotated[PathText, AfterValidator(_pattern)]
MarkerName = Annotated[Text, Field(max_length=200), AfterValidator(_marker)]
SetExpression = Annotated[
    Text, Field(min_length=1, max_length=PATH_CHARACTERS), AfterValidator(_set_expression)
]
Encodings = Annotated[
    str | tuple[str, ...],
    PlainValidator(_encodings),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Delimiter = Annotated[
    Literal["auto", ",", ";", "|", "tab", "\t", r"\t"], AfterValidator(_delimiter)
]
TransformSpec = Annotated[Text, AfterValidator(_transform)]
Cron = Annotated[Text, AfterValidator(_cron)]
Zone = Annotated[Text, AfterValidator(_zone)]
Selection = Annotated[Text, AfterValidator(_selection)]
Webhook = Annotated[Argument, AfterValidator(_webhook)]
Secret = Annotated[str, Field(min_length=16, max_length=200), AfterValidator(_argument)]
Listen = Annotated[PathText, AfterValidator(_listen)]
Address = Annotated[Text, AfterValidator(_address)]
Executor = Literal["local", "lsf", "slurm", "docker"]
TimeOfDay = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def _is_number(annotation: object) -> bool:
    return annotation in {int, float} or any(map(_is_number, get_args(annotation)))


class Section(BaseModel, frozen=True, extra="forbid"):
    """A mapping in the settings file. An empty one has all its defaults."""

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, given: object) -> object:
        return {} if given is None else given

    @field_validator("*", mode="before")
    @classmethod
    def _one_meaning(cls, given: object, info: ValidationInfo) -> object:
        """Refuse `010`: it is 8 in YAML 1.1, and 10 elsewhere."""
        is_number = _is_number(cls.model_fields[info.field_name or ""].annotation)
        if is_number and isinstance(given, str) and OCTAL.fullmatch(given):
            digits = given.replace("_", "")
            octal, decimal = int(digits, 8), int(digits)
            if octal != decimal:
                problem = f"may be {octal} (octal) or {decimal}"
                raise ValueError(f"{problem}; write it without the leading zero")
        return given

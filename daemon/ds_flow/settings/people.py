"""The settings of what people and other systems are told and shown: mail, lineage, the page."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ds_flow.settings.types import (
    Address,
    Argument,
    Command,
    Count,
    Day,
    Listen,
    Minutes,
    Name,
    PathText,
    Pattern,
    Seconds,
    Secret,
    Section,
    Text,
    TimeOfDay,
    Webhook,
    Zone,
)


class Email(Section, frozen=True):
    """Alerts by e-mail, over an SMTP server. Without recipients there are none."""

    to: tuple[Address, ...] = Field(default=(), description="Who gets them.")
    sender: Address | None = Field(default=None, description="From whom they come.")
    host: Name | None = Field(default=None, description="The SMTP server.")
    port: Count = Field(default=587, le=65535, description="Its port.")
    tls: Literal["starttls", "tls", "none"] = Field(
        default="starttls",
        description="Encryption: starttls (port 587), tls from the start (465), or none.",
    )
    user: Text | None = Field(default=None, description="The user at the server, if it asks.")
    password: Argument | None = Field(
        default=None, description="The password. Set it in `.env`. It is never shown."
    )

    @model_validator(mode="after")
    def _whole(self) -> "Email":
        if self.to and not (self.host and self.sender):
            raise ValueError("needs host and sender, too")
        if self.password and self.tls == "none":
            raise ValueError("would send the password in plain text: set tls")
        return self


class Alerts(Section, frozen=True):
    """Where alerts go."""

    command: Command = Field(
        default=(),
        description="Program and arguments. It gets each alert as JSON on standard input.",
    )
    webhook: Webhook | None = Field(
        default=None,
        description="Address to which each alert is posted as JSON. It is never shown.",
    )
    email: Email = Field(default_factory=Email)
    heartbeat: Webhook | None = Field(
        default=None,
        description="Address that is called while all is well, and after each good night. Never"
        " shown.",
    )
    heartbeat_minutes: Minutes = Field(
        default=5, description="Minutes between two calls of `heartbeat`."
    )
    every_minutes: Minutes = Field(
        default=60,
        description="Minutes between two alerts of one kind. The later one has the count.",
    )
    limit_seconds: Seconds = Field(
        default=30, description="Seconds that the command, the webhook or the mail may take."
    )


class Lineage(Section, frozen=True):
    """Where OpenLineage events go."""

    file: PathText | None = Field(
        default=None,
        description="File to which each event is added as one line of JSON. Default: none.",
    )
    url: Webhook | None = Field(
        default=None,
        description="Address to which each event is posted as JSON. It is never shown.",
    )
    token: Argument | None = Field(
        default=None,
        description="A token that is sent with each event, as `Authorization: Bearer`. It is never"
        " shown.",
    )


class Publish(Section, frozen=True):
    """What follows a publication."""

    then: tuple[Annotated[Command, Field(min_length=1)], ...] = Field(
        default=(),
        description="Programs with their arguments. Each is started after each publication, with"
        " the path of its manifest as the last argument, and again until it succeeds.",
    )
    limit_minutes: Minutes = Field(
        default=60, description="Minutes that such a program may take at a time."
    )
    retry_first_seconds: Seconds = Field(
        default=10,
        description="Seconds before it is started again after a failure. Each further failure"
        " doubles them, up to 10 minutes.",
    )


class Metaflow(Section, frozen=True):
    """Who is shown the runs, beside the project's own records."""

    metadata: Literal["local", "service"] = Field(
        default="local",
        description="local: the project's own records only. service: they are also sent to `url`.",
    )
    url: Webhook | None = Field(
        default=None,
        description="Address of the Metaflow metadata service. It is never shown.",
    )
    auth_key: Argument | None = Field(
        default=None, description="A key that is sent as `x-api-key`. It is never shown."
    )

    @model_validator(mode="after")
    def _whole(self) -> "Metaflow":
        if self.metadata == "service" and not self.url:
            raise ValueError("metadata: service needs a url, too")
        return self


class Report(Section, frozen=True):
    """Reports that nobody asks for."""

    daily: TimeOfDay | None = Field(
        default=None,
        description="The time of day, HH:MM by this machine's clock, at which a report of the last"
        " 24 hours is written to `reports/` in the output folder. Default: none.",
    )
    card: bool = Field(
        default=False,
        description="Whether each published run has a Metaflow card of its report, on the step"
        " `end`. It takes a process more for each run.",
    )


class Expected(Section, frozen=True):
    """Files that should arrive every day."""

    pattern: Pattern = Field(description="Which files, as in `paths.input_pattern`.")
    count: Count = Field(default=1, description="The least number of files.")
    by: TimeOfDay = Field(description="The time of day, HH:MM, by which they should arrive.")
    days: tuple[Day, ...] = Field(
        default=("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
        min_length=1,
        description="The days of the week on which they should arrive.",
    )
    timezone: Zone = Field(
        default="local", description="`local`, or a time zone such as Europe/Oslo."
    )


class Web(Section, frozen=True):
    """The page that `ds-flow web` serves."""

    listen: Listen = Field(
        default="127.0.0.1:8321",
        description="HOST:PORT, or the path of a Unix socket, which its user and group may use.",
    )
    hosts: tuple[Name, ...] = Field(
        default=(),
        description="Further names by which people reach the page, such as that of a proxy.",
    )
    actions: bool = Field(
        default=False, description="Whether the page may retry, rerun, release and cancel."
    )
    token: Secret | None = Field(
        default=None,
        description="What a person must give for an action. Without one, there are no actions."
        " It is never shown.",
    )

"""Java libraries by their Maven coordinates, fetched by the user's own Maven.

So where they come from, through which mirror or proxy, is what the user's Maven says, and
what it has in its repository is not fetched again. Every file's checksum must be right.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import anyio

from .._errors import BusError
from ._child import OwnedChild
from ._tend import status, tend, told

_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_TELL_EVERY = 5.0

_PROJECT = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tbus</groupId>
  <artifactId>jars</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
{dependencies}
  </dependencies>
</project>
"""
_DEPENDENCY = """\
    <dependency>
      <groupId>{0}</groupId>
      <artifactId>{1}</artifactId>
      <version>{2}</version>
    </dependency>"""


def find_maven() -> str | None:
    """The path of `mvn`, if there is one on PATH."""
    return shutil.which("mvn")


async def fetch_jars(
    maven: str, coordinates: Sequence[str], directory: Path, tell: Callable[[str], None]
) -> None:
    """Put the jars of these libraries, and of all they need to run, into a new directory.

    Cancelled or failed, it leaves some of them there.

    Args:
        maven: path of `mvn`.
        coordinates: each as "group:artifact:version".
        directory: where `pom.xml` and the jars, in `jars`, are written.
        tell: called with a line now and then: what Maven is at.

    Raises:
        BusError: Maven failed; the end of what it wrote is in the message.
        OSError: the directory cannot be written, or Maven cannot be run.
    """
    pom, jars = directory / "pom.xml", directory / "jars"
    dependencies = (_DEPENDENCY.format(*map(escape, one.split(":"))) for one in coordinates)
    pom.write_text(_PROJECT.format(dependencies="\n".join(dependencies)), encoding="utf-8")
    child = OwnedChild(
        [
            maven,
            "--batch-mode",
            "--strict-checksums",
            "--file",
            str(pom),
            _PLUGIN,
            f"-DoutputDirectory={jars}",
            "-DincludeScope=runtime",
            # Lines come as they are, not for a terminal.
            "-Dstyle.color=never",
        ]
    )
    async with tend(child, "Maven"):
        while child.returncode is None:
            with anyio.move_on_after(_TELL_EVERY):
                await child.wait_exit()
                continue
            if lines := child.last_lines:
                tell(lines[-1])
        if child.returncode != 0:
            raise BusError(
                f"Maven could not fetch {', '.join(coordinates)}: {maven} ended with"
                f" {status(child.returncode)}. Is the network, or the mirror that Maven is"
                f" set up with, to be reached? {told(child)}"
            )

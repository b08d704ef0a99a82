"""Commands that hand trained models on."""

import argparse
from pathlib import Path

from nnood.cli.console import Command, ConsoleCommand, make_parser
from nnood.cli.messages import say
from nnood.cli.prediction import add_members, find_members, names_members
from nnood.errors import UserError
from nnood.paths import Roots

REGIONS = ("brain", "abdom")


@ConsoleCommand
def export() -> Command:
    """`nnood_export`: a trained model in one file, or the MOOD challenge's container."""
    parser = make_parser(
        "nnood_export",
        "Write all that a prediction needs into one archive: what nnood_predict with the same options follows. Or, "
        "with --mood, write the folder that the container of the MOOD challenge is built from.",
        "nnood_export -d 101 -o model.zip",
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("-o", dest="output", type=Path, metavar="FILE", help="the archive, such as model.zip")
    target.add_argument("--mood", type=Path, metavar="FOLDER", help="new folder for a container")
    add_members(parser)
    for region in REGIONS:
        parser.add_argument(
            f"--{region}", metavar="MODEL", help="for --mood: id or name of a data set, or an archive; may be left out"
        )

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        models = {region: getattr(arguments, region) for region in REGIONS if getattr(arguments, region)}
        if arguments.mood is not None:
            _export_mood(arguments, models, roots)
            return
        if models:
            raise UserError("--brain and --abdom go with --mood; an archive holds one model, named with -d.")
        from nnood.sharing import export_model

        planned = find_members(arguments, roots)
        say(planned.plan.describe())
        manifest = export_model(planned, roots, arguments.output)
        size = arguments.output.stat().st_size / 2**20
        say(f"Wrote {arguments.output} ({len(manifest.files)} files of {manifest.dataset}, {size:.1f} MiB)")
        say(f"Next: nnood_predict -i IMAGES -o OUTPUT --model {arguments.output}, anywhere")

    return parser, run


def _export_mood(arguments: argparse.Namespace, models: dict[str, str], roots: Roots) -> None:
    """Write the container's folder."""
    from nnood.sharing.container import export_mood

    if names_members(arguments):
        raise UserError("With --mood, models are named with --brain and --abdom; leave out other options.")
    export_mood(arguments.mood, models, roots)
    say(f"Wrote {arguments.mood}, with scripts for {' and '.join(models)}")
    say(f"Next: docker build -t nnood_mood {arguments.mood}")


@ConsoleCommand
def install() -> Command:
    """`nnood_install`: a model from an archive among the own results."""
    parser = make_parser(
        "nnood_install",
        "Verify an archive that nnood_export wrote, and put its model among the results.",
        "nnood_install model.zip",
    )
    parser.add_argument("model", type=Path, help="the archive")
    parser.add_argument("--force", action="store_true", help="replace the results of the same data set")

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.sharing import install_model

        folder = install_model(arguments.model, roots, force=arguments.force)
        say(f"Installed {folder}\nNext: nnood_predict -i IMAGES -o OUTPUT -d {folder.name}")

    return parser, run

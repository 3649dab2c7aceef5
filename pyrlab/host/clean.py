"""Remove what is pyrlab's: containers, images, home volumes, build cache (make clean). Never a notebook."""

from __future__ import annotations

import os
import shutil
import sys

from pyrlab.host import idmap, owner, trial
from pyrlab.host.bake import cache_records, prune, shown_records, with_what_rests_on
from pyrlab.host.engine import Engine
from pyrlab.host.lab import labs
from pyrlab.host.online import CERTIFICATES
from pyrlab.host.project import Project, run_main
from pyrlab.host.proxies import SERVICES
from pyrlab.host.publish import sweep
from pyrlab.host.session import alone
from pyrlab.model.problem import Problem


def main(project: Project) -> None:
    """Remove everything; the volumes with the labs' settings only after asking, where one can ask."""
    volumes = [lab.home for lab in labs(project) if owner.inspect(project, "volume", lab.home)]
    ask(volumes)
    with alone(project):  # no build of this checkout is under way
        remove(project, volumes)


def remove(project: Project, volumes: list[str]) -> None:
    """Remove everything, `volumes` included."""
    engine, cache = project.engine, project.cache
    containers = {lab.container_name: container for lab in labs(project) if (container := lab.container)}
    if containers:
        engine.run("rm", "--force", *containers)
    trial.remove(project)
    sweep(project)
    for lab in labs(project):
        idmap.unmount(lab.mount_point)
    if volumes:
        engine.run("volume", "rm", *volumes)
    for network in {f"{lab.compose[0]}_default" for lab in labs(project)}:
        if engine.inspect("network", network):
            engine.run("network", "rm", network)
    images = remove_images(project)
    for container in containers.values():
        engine.drop_image(container["Image"])
    records = remove_records(project)
    if any(engine.inspect("container", f"{project.parameter('PROJECT')}-{service}") for service in SERVICES):
        for path in cache.iterdir():  # but for what the caches of make proxies have mounted
            if path.name != CERTIFICATES:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    else:
        engine.run("image", "rm", project.tag_of("pyrlab-proxies"), check=False)
        shutil.rmtree(cache, ignore_errors=True)
    print(f"removed: {', '.join([*containers, *volumes, *images, *records]) or 'nothing'}")


def remove_images(project: Project) -> list[str]:
    """Remove the images of TAG, children first, if they are this checkout's; what was removed."""
    found = owner.of_tag(project)
    if not owner.is_own(project, found):
        print(f"the images stay, which are of {found[owner.USER]}, made in {found[owner.CHECKOUT]}")
        return []
    there = project.images()
    images = [tag for name in reversed(project.table) if (tag := project.tag_of(name)) in there]
    for image in images:
        project.engine.run("image", "rm", "--force", image)
    project.engine.run("volume", "rm", owner.tag_volume(project), check=False)
    return images


def ask(volumes: list[str]) -> None:
    """Ask whether the labs' settings may go, where one can ask; raises Problem where they may not."""
    if volumes and "--jobserver" in os.environ.get("MAKEFLAGS", "") and not sys.stdin.isatty() and sys.stderr.isatty():
        raise Problem("make -j lets nobody be asked whether the settings of the labs may go; type make clean alone")
    if volumes and sys.stdin.isatty():
        print(f"This removes the settings of your labs too (volumes {', '.join(volumes)}); your notebooks stay.")
        if input("Remove them? [y/N] ").strip().lower() not in ("y", "yes"):
            raise Problem("nothing was removed")


def remove_records(project: Project) -> list[str]:
    """Remove what builds keep, unless others build on this engine, too; what was removed."""
    if others := owner.others(project):
        print(f"the build cache stays, for {' and '.join(others)} on this engine")
        return []
    forget_builds(project.engine)
    return ["the build cache"]


def forget_builds(engine: Engine) -> None:
    """Remove all that builds of pyrlab's keep.

    Every step of them names a path below /pyrlab, every cache mount an id that starts with pyrlab, and whatever rests
    on such records keeps them there.
    """
    records = cache_records(shown_records(engine))
    own = (name for name, (record, _) in records.items() if "pyrlab" in record)
    prune(engine, with_what_rests_on(records, own))


if __name__ == "__main__":
    run_main(main)

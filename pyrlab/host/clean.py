"""Remove what is pyrlab's: containers, images, home volumes, build cache (make clean). Never a notebook."""

from __future__ import annotations

import shutil
import sys

from pyrlab.host import idmap, owner, trial
from pyrlab.host.bake import cache_records
from pyrlab.host.docker import CACHE, docker, drop_image, inspect, parameter, run_main, tag_of
from pyrlab.host.lab import compose, container_name, home_volume, mount_point
from pyrlab.host.online import CERTIFICATES
from pyrlab.host.proxies import SERVICES
from pyrlab.model.images import labs, table
from pyrlab.model.problem import Problem


def main() -> None:
    """Remove everything; the volumes with the labs' settings only after asking, where one can ask."""
    project = parameter("PROJECT", "pyrlab")
    volumes = [volume for volume in map(home_volume, labs()) if owner.volume(volume)]
    ask(volumes)
    named = {name: owner.container(name) for name in map(container_name, labs())}
    containers = {name: container for name, container in named.items() if container}
    images = [tag_of(name) for name in reversed(table()) if inspect("image", tag_of(name))]
    if images:
        owner.check_tag(images[-1])
    if containers:
        docker("rm", "--force", *containers)
    trial.remove()
    for lab in labs():
        idmap.unmount(mount_point(lab))
    if volumes:
        docker("volume", "rm", *volumes)
    for network in {f"{compose(lab)[0]}_default" for lab in labs()}:
        if inspect("network", network):
            docker("network", "rm", network)
    for image in images:
        docker("image", "rm", "--force", image)
    for container in containers.values():
        drop_image(container["Image"])
    owner.release_tag()
    cache = remove_cache()
    if any(inspect("container", f"{project}-{service}") for service in SERVICES):
        for path in CACHE.iterdir():  # but for what the caches of make proxies have mounted
            if path != CERTIFICATES:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    else:
        docker("image", "rm", tag_of("pyrlab-proxies"), check=False)
        shutil.rmtree(CACHE, ignore_errors=True)
    print(f"removed: {', '.join([*containers, *volumes, *images, *cache]) or 'nothing'}")


def ask(volumes: list[str]) -> None:
    """Ask whether the labs' settings may go, where one can ask; raises Problem where they may not."""
    if volumes and sys.stdin.isatty():
        print(f"This removes the settings of your labs too (volumes {', '.join(volumes)}); your notebooks stay.")
        if input("Remove them? [y/N] ").strip().lower() not in ("y", "yes"):
            raise Problem("nothing was removed")


def remove_cache() -> list[str]:
    """Remove what builds keep, unless others build on this engine, too; what was removed."""
    if others := owner.others():
        print(f"the build cache stays, for {' and '.join(others)} on this engine")
        return []
    if ids := cache_ids():
        docker("buildx", "prune", "--all", "--force", "--filter", f"id=/^({'|'.join(ids)})/")
    return ["the build cache"]


def cache_ids() -> list[str]:
    """The ids of pyrlab's records in the build cache, and of those that rest on them, which keep them there.

    Every step of pyrlab's names a path below /pyrlab, every cache mount an id that starts with pyrlab; but
    BuildKit prunes by id, not by description. 12 characters tell the ids apart and keep the command short.
    """
    records = cache_records(docker("buildx", "du", "--verbose"))
    found = {name for name, (record, _) in records.items() if "pyrlab" in record}
    while more := {name for name, (_, parents) in records.items() if name not in found and parents & found}:
        found |= more
    return sorted(name[:12] for name in found)


if __name__ == "__main__":
    run_main(main)

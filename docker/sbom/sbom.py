"""Write what is in images in the standard formats: sbom.py MANIFESTS FOLDER.

For each manifest IMAGE.json of the folder MANIFESTS, FOLDER gets IMAGE.cdx.json (CycloneDX 1.6) and IMAGE.spdx.json
(SPDX 2.3): every package with its version, licence and package URL, and which packages need which. The same manifest
gives the same bytes. Stops where a document is not valid by its standard.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import ExpressionError, LicenseExpression, get_spdx_licensing
from packageurl import PackageURL
from spdx_tools.spdx import model as spdx
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document
from spdx_tools.spdx.writer.json.json_writer import write_document_to_file

from pyrlab.model import events
from pyrlab.model.problem import Problem

Manifest = dict[str, Any]  # as pyrlab/steps/manifest.py writes it, with the image's digest
MADE = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC)
SPACE = "https://pyrlab.invalid/sbom"  # for names that must be unique, not addresses
SPDX = get_spdx_licensing()


def url_of(package: Manifest) -> PackageURL:
    """The package URL: https://github.com/package-url/purl-spec."""
    kinds = {"Debian": ("deb", "debian"), "Python": ("pypi", None), "R": ("cran", None)}
    kind, namespace = kinds.get(package["ecosystem"], ("generic", None))
    return PackageURL(kind, namespace, package["name"], package["version"])


def declared(licence: str) -> LicenseExpression | spdx.SpdxNoAssertion:
    """A licence as an expression of the SPDX's identifiers, no assertion where it is something else."""
    try:
        return SPDX.parse(licence, validate=True, strict=True) if licence else spdx.SpdxNoAssertion()
    except ExpressionError:
        return spdx.SpdxNoAssertion()


def needed_by(package: Manifest) -> list[str]:
    """The names of the packages that need this one."""
    return [why.removeprefix("needed by ") for why in package["why"] if why.startswith("needed by ")]


def cyclonedx(manifest: Manifest) -> str:
    """The manifest as a CycloneDX document; stops where it is not valid."""
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{SPACE}/{manifest['digest']}"))
    bom.metadata.timestamp = MADE
    image = Component(
        type=ComponentType.CONTAINER, name=manifest["image"], version=manifest["digest"], bom_ref=manifest["image"]
    )
    bom.metadata.component = image
    licences = LicenseFactory()
    components: dict[tuple[str, str], Component] = {}
    for package in manifest["packages"]:
        url = url_of(package)
        components[package["ecosystem"], package["name"]] = Component(
            type=ComponentType.LIBRARY,
            name=package["name"],
            version=package["version"],
            purl=url,
            bom_ref=str(url),
            licenses=[licences.make_from_string(package["licence"])] if package["licence"] else [],
            properties=[
                Property(name="pyrlab:size", value=str(package["size"])),
                *(Property(name="pyrlab:why", value=why) for why in package["why"]),
            ],
        )
    bom.components.update(components.values())
    bom.register_dependency(image, components.values())
    for package in manifest["packages"]:
        for name in needed_by(package):
            component = components[package["ecosystem"], package["name"]]
            bom.register_dependency(components[package["ecosystem"], name], [component])
    text: str = JsonV1Dot6(bom).output_as_string(indent=1)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise Problem(f"the CycloneDX document of {manifest['image']} is not valid: {error}")
    return text + "\n"


def spdx_document(manifest: Manifest) -> spdx.Document:
    """The manifest as an SPDX document; stops where it is not valid."""
    digest = manifest["digest"].partition(":")[2]
    info = spdx.CreationInfo(
        spdx_version="SPDX-2.3",
        spdx_id="SPDXRef-DOCUMENT",
        name=manifest["image"],
        document_namespace=f"{SPACE}/{digest}",
        creators=[spdx.Actor(spdx.ActorType.TOOL, "pyrlab")],
        created=MADE.replace(tzinfo=None),
    )
    image = spdx.Package(
        spdx_id="SPDXRef-image",
        name=manifest["image"],
        version=manifest["digest"],
        download_location=spdx.SpdxNoAssertion(),
        files_analyzed=False,
        primary_package_purpose=spdx.PackagePurpose.CONTAINER,
    )
    packages: list[spdx.Package] = []
    relations = [spdx.Relationship("SPDXRef-DOCUMENT", spdx.RelationshipType.DESCRIBES, image.spdx_id)]
    ids = {(p["ecosystem"], p["name"]): f"SPDXRef-{number}" for number, p in enumerate(manifest["packages"])}
    for package in manifest["packages"]:
        this = ids[package["ecosystem"], package["name"]]
        manager = spdx.ExternalPackageRefCategory.PACKAGE_MANAGER
        packages.append(
            spdx.Package(
                spdx_id=this,
                name=package["name"],
                version=package["version"],
                download_location=spdx.SpdxNoAssertion(),
                files_analyzed=False,
                license_declared=declared(package["licence"]),
                license_comment=package["licence"] or None,
                comment=", ".join(package["why"]),
                external_references=[spdx.ExternalPackageRef(manager, "purl", str(url_of(package)))],
            )
        )
        relations.append(spdx.Relationship(image.spdx_id, spdx.RelationshipType.CONTAINS, this))
        relations += [
            spdx.Relationship(ids[package["ecosystem"], name], spdx.RelationshipType.DEPENDS_ON, this)
            for name in needed_by(package)
        ]
    document = spdx.Document(info, packages=[image, *packages], relationships=relations)
    if errors := validate_full_spdx_document(document):
        raise Problem(f"the SPDX document of {manifest['image']} is not valid: {errors[0].validation_message}")
    return document


def main() -> None:
    """Write both documents of every manifest; see the module's docstring."""
    source, folder = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.json")):
        manifest = json.loads(path.read_text())
        (folder / f"{path.stem}.cdx.json").write_text(cyclonedx(manifest))
        write_document_to_file(spdx_document(manifest), str(folder / f"{path.stem}.spdx.json"), validate=False)


if __name__ == "__main__":
    events.run(main)

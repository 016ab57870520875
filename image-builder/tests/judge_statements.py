"""Judges a bill of materials and a provenance by other people's programs: CycloneDX's own strict validator and in-toto's
own message types. Prints a line for each, or fails with what is wrong."""

import json
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement, statement_pb2

sbom, provenance = (open(path).read() for path in sys.argv[1:3])

error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom)
if error:
    sys.exit(f"CycloneDX: {error}")
print("CycloneDX 1.6: valid")

parsed = json_format.Parse(provenance, statement_pb2.Statement())
statement.Statement.copy_from_pb(parsed).validate()
predicate = json_format.Parse(json.dumps(json.loads(provenance)["predicate"]), provenance_pb2.Provenance())
assert predicate.build_definition.build_type and predicate.run_details.builder.id
print("in-toto v1, SLSA v1: valid")

"""Judges a bill of materials, a provenance and its signed envelope by other people's programs: CycloneDX's own strict
validator, in-toto's own message types, securesystemslib's verifier. Prints a line for each, or fails with what is wrong."""

import base64
import json
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement, statement_pb2
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

sbom, provenance, signed = (open(path).read() for path in sys.argv[1:4])

error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom)
if error:
    sys.exit(f"CycloneDX: {error}")
print("CycloneDX 1.6: valid")

parsed = json_format.Parse(provenance, statement_pb2.Statement())
statement.Statement.copy_from_pb(parsed).validate()
predicate = json_format.Parse(json.dumps(json.loads(provenance)["predicate"]), provenance_pb2.Provenance())
assert predicate.build_definition.build_type and predicate.run_details.builder.id
print("in-toto v1, SLSA v1: valid")

# The key id is the builder's vkey: name, hash, and in base64 a type byte and the key.
keyid = json.loads(signed)["signatures"][0]["keyid"]
material = base64.b64decode(keyid.split("+", 2)[2])
assert material[0] == 1 and len(material) == 33
key = SSlibKey(keyid, "ed25519", "ed25519", {"public": material[1:].hex()})
envelope = Envelope.from_dict(json.loads(signed))
assert keyid in envelope.verify([key], 1)
assert envelope.payload_type == "application/vnd.in-toto+json"
assert json.loads(envelope.payload) == json.loads(provenance)
altered = json.loads(provenance)
altered["subject"][0]["digest"]["sha256"] = "00" * 32
envelope.payload = json.dumps(altered).encode()
try:
    envelope.verify([key], 1)
    sys.exit("DSSE: an altered statement verifies")
except VerificationError:
    print("DSSE: valid, and not when altered")

-- Collection asks whether any repository has a manifest. Owner: orlop.registryd.

CREATE INDEX registry_manifest_by_digest ON registry_manifest (digest);

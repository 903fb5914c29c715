// What fhir-kit-client does against a served workspace: BASE and TOKEN come from the environment.
import assert from 'node:assert/strict';
import { Client } from 'fhir-kit-client';

const client = new Client({ baseUrl: process.env.BASE, bearerToken: process.env.TOKEN });
const status = async (promise) => promise.then(() => 0, (error) => error.response?.status ?? String(error));
const names = (bundle) => (bundle.entry ?? []).map((entry) => entry.resource.name[0].given[0]);

// capabilities
const statement = await client.capabilityStatement();
assert.equal(statement.fhirVersion, '4.0.1');

// create, read, vread
const born = { resourceType: 'Patient', name: [{ family: 'Kit', given: ['A'] }], birthDate: '1980-02-13' };
const made = await client.create({ resourceType: 'Patient', body: born });
assert.equal(made.meta.versionId, '1');
const sent = Client.httpFor(made).response;
assert.equal(sent.status, 201);
assert.match(sent.headers.get('location'), new RegExp(`/Patient/${made.id}/_history/1$`));
assert.equal((await client.read({ resourceType: 'Patient', id: made.id })).birthDate, '1980-02-13');

// update with If-Match: the version that is current, then a stale one
const etag = sent.headers.get('etag');
const body = { ...made, gender: 'female' };
const changed = await client.update({
  resourceType: 'Patient', id: made.id, body, options: { headers: { 'If-Match': etag } },
});
assert.equal(changed.meta.versionId, '2');
assert.equal(await status(client.update({
  resourceType: 'Patient', id: made.id, body: { ...body, gender: 'male' }, options: { headers: { 'If-Match': etag } },
})), 412);
assert.equal((await client.vread({ resourceType: 'Patient', id: made.id, version: '1' })).gender, undefined);

// patch
const patched = await client.patch({
  resourceType: 'Patient', id: made.id,
  jsonPatch: [{ op: 'test', path: '/gender', value: 'female' }, { op: 'replace', path: '/gender', value: 'other' }],
});
assert.equal(patched.gender, 'other');

// conditional update
const mark = { identifier: [{ system: 'http://kit', value: '1' }] };
for (const given of ['B', 'C']) {
  const one = await client.update({
    resourceType: 'Patient', searchParams: { identifier: 'http://kit|1' },
    body: { ...born, ...mark, name: [{ family: 'Kit', given: [given] }] },
  });
  assert.equal(one.name[0].given[0], given);
}

// transaction, with a reference between its entries; and a batch of which one entry fails
const patient = 'urn:uuid:9c1b6f40-6d2b-4b5c-9a10-3f6f4a5d0001';
const code = { coding: [{ system: 'http://loinc.org', code: '8867-4' }] };
const transaction = await client.transaction({
  body: {
    resourceType: 'Bundle', type: 'transaction',
    entry: [
      {
        fullUrl: patient, request: { method: 'POST', url: 'Patient' },
        resource: { resourceType: 'Patient', name: [{ family: 'Kit', given: ['D'] }] },
      },
      {
        request: { method: 'POST', url: 'Observation' },
        resource: {
          resourceType: 'Observation', status: 'final', code, subject: { reference: patient },
          effectiveDateTime: '2024-01-01',
        },
      },
    ],
  },
});
assert.equal(transaction.type, 'transaction-response');
assert.deepEqual(transaction.entry.map((entry) => entry.response.status.slice(0, 3)), ['201', '201']);
const owner = transaction.entry[0].response.location.split('/').at(-3);
const batch = await client.batch({
  body: {
    resourceType: 'Bundle', type: 'batch',
    entry: [
      { request: { method: 'GET', url: `Patient/${owner}` } },
      { request: { method: 'GET', url: 'Patient/nobody' } },
    ],
  },
});
assert.deepEqual(batch.entry.map((entry) => entry.response.status.slice(0, 3)), ['200', '404']);

// search: by GET, by POST, in a compartment, over all types; pages
const search = { family: 'Kit', _sort: 'given', _count: 2 };
const first = await client.search({ resourceType: 'Patient', searchParams: search });
assert.deepEqual(names(first), ['A', 'C']);
const second = await client.nextPage({ bundle: first });
assert.deepEqual(names(second), ['D']);
assert.equal(await client.nextPage({ bundle: second }), undefined);
const hidden = await client.search({
  resourceType: 'Patient', searchParams: search, options: { postSearch: true },
});
assert.deepEqual(names(hidden), ['A', 'C']);
assert.deepEqual(names(await client.nextPage({ bundle: hidden })), ['D']);
const mine = await client.search({
  resourceType: 'Observation', compartment: { resourceType: 'Patient', id: owner }, searchParams: { code: '8867-4' },
});
assert.equal(mine.entry.length, 1);
assert.ok(!mine.entry[0].resource.subject.reference.startsWith('urn:'));
const all = await client.search({ searchParams: { _type: 'Patient,Observation', _summary: 'count' } });
assert.equal(all.total, 4);
assert.equal(await status(client.search({ resourceType: 'Patient', searchParams: { colour: 'red' } })), 400);

// the reference of a resource, resolved
const subject = await client.resolve({ reference: mine.entry[0].resource.subject.reference });
assert.equal(subject.id, owner);

// history
const history = await client.history({ resourceType: 'Patient', id: made.id });
assert.deepEqual(history.entry.map((entry) => entry.resource.meta.versionId), ['3', '2', '1']);
assert.ok((await client.history({ resourceType: 'Patient' })).entry.length >= 6);
assert.equal((await client.history()).type, 'history');

// operations
const everything = await client.operation({ name: 'everything', resourceType: 'Patient', id: owner, method: 'GET' });
assert.deepEqual(everything.entry.map((entry) => entry.resource.resourceType).sort(), ['Observation', 'Patient']);
const posted = await client.operation({
  name: '$everything', resourceType: 'Patient', id: owner,
  input: { resourceType: 'Parameters', parameter: [{ name: '_count', valueInteger: 1 }] },
});
assert.equal(posted.entry.length, 1);
assert.equal((await client.nextPage({ bundle: posted })).entry.length, 1);
const newest = await client.operation({
  name: 'lastn', resourceType: 'Observation', method: 'GET', input: { patient: owner, code: '8867-4' },
});
assert.equal(newest.total, 1);
const matched = await client.operation({
  name: 'match', resourceType: 'Patient',
  input: { resourceType: 'Parameters', parameter: [{ name: 'resource', resource: born }] },
});
assert.equal(matched.entry[0].resource.id, made.id);
assert.ok(matched.entry[0].search.score > 0.9);
const issues = await client.operation({
  name: 'validate', resourceType: 'Patient', input: { resourceType: 'Patient', gender: 'nonsense' },
});
assert.equal(issues.issue[0].severity, 'error');

// delete: gone, and its history stays
await client.delete({ resourceType: 'Patient', id: made.id });
assert.equal(await status(client.read({ resourceType: 'Patient', id: made.id })), 410);
assert.equal(await status(client.read({ resourceType: 'Patient', id: 'nobody' })), 404);
assert.equal((await client.history({ resourceType: 'Patient', id: made.id })).entry.length, 4);

// without a right there is nothing
const nobody = new Client({ baseUrl: process.env.BASE });
assert.equal(await status(nobody.search({ resourceType: 'Patient' })), 401);
console.log('done');

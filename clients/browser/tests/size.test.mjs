// What a page loads.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'

for (const [file, most] of [['lotse.js', 4096], ['index.mjs', 4096], ['banner.js', 3072], ['banner.mjs', 3072]]) {
  test(`${file} takes ${most} bytes at most`, (context) => {
    const size = gzipSync(readFileSync(new URL(`../dist/${file}`, import.meta.url)), { level: 9 }).length
    context.diagnostic(`${file}: ${size} bytes`)
    assert.ok(size <= most, `${size} bytes`)
  })
}

test('the package needs nothing else', () => {
  const { dependencies } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url)))
  assert.equal(dependencies, undefined)
})

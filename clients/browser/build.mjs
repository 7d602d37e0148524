// dist/: what pages load (lotse.js, banner.js) and bundlers import (index.mjs, banner.mjs); build/: each module by itself, for tests.
import { readdirSync, rmSync } from 'node:fs'
import { build } from 'esbuild'

const shipped = { bundle: true, minify: true, target: 'es2020', legalComments: 'none', outdir: 'dist', logLevel: 'warning' }

rmSync('dist', { recursive: true, force: true })
rmSync('build', { recursive: true, force: true })
await Promise.all([
  build({ ...shipped, entryPoints: { lotse: 'src/script.ts', banner: 'src/banner-script.ts' }, format: 'iife' }),
  build({
    ...shipped, entryPoints: { index: 'src/index.ts', banner: 'src/banner.ts' }, format: 'esm', outExtension: { '.js': '.mjs' },
  }),
  build({ entryPoints: readdirSync('src').map((name) => `src/${name}`), outdir: 'build', format: 'esm', logLevel: 'warning' }),
])

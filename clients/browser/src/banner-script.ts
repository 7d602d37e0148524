/** `<script src="…/banner.js">`, behind the client's own script. */

import { banner, type BannerOptions } from './banner.js'
import type { Lotse } from './client.js'

const { dataset } = document.currentScript as HTMLScriptElement
const page = window as unknown as { lotse: Lotse; lotseBanner: unknown }

page.lotseBanner = banner(page.lotse, dataset as BannerOptions)

/** Event names and fields of `POST /v1/events`; the names are those of features/events.py, as a test checks. */

export const NAMES =
  'custom page_view view_item_list select_item view_item search add_to_wishlist add_to_cart remove_from_cart view_cart begin_checkout add_shipping_info add_payment_info purchase refund login sign_up scroll click form_start form_submit video_start video_progress video_complete file_download user_engagement select_promotion view_promotion share generate_lead'

type Words<Text extends string> = Text extends `${infer First} ${infer Rest}` ? First | Words<Rest> : Text

type Camel<Name extends string> = Name extends `${infer First}_${infer Rest}` ? `${First}${Capitalize<Camel<Rest>>}` : Name

export type EventName = Words<typeof NAMES>

/** What an event may tell. Money is in `currency`, without it in the shop's own. */
export interface Fields {
  page?: string
  /** Where the visitor came from; told with a whole address as `page`, it says channel and campaign. */
  referrer?: string
  item?: string
  category?: string
  campaign?: string
  price?: number
  quantity?: number
  value?: number
  currency?: string
  channel?: string
  device?: string
  interactive?: boolean
  declared?: number[]
}

/** Of a cart or an order also its products: one event each, the value on the first. */
export interface Details extends Fields {
  items?: Fields[]
}

/** `viewItem`, `addToCart`, `purchase`, ...: `track` with the name. */
export type Helpers = { [Name in EventName as Camel<Name>]: (details?: Details) => void }

export const camel = (name: string) => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase())

/** An event as it is sent. `sent_at` is added then. */
export interface Wire extends Fields {
  visitor: string
  name: string
  id: string
  time: number
  consent: readonly Purpose[]
}

/** What may be done with an event. */
export type Purpose = 'measure' | 'link' | 'personalise'

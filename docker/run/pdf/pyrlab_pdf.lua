-- Makes of a notebook, as pandoc reads it, what Typst can set: HTML becomes tables and text,
-- figures become files in the current directory, what would stop Typst is left out.

local TEXT_WIDTH = 627 -- A4 less the margins, in CSS pixels
local SIGNATURES = {
  ['^\137PNG'] = 'png', ['^\255\216\255'] = 'jpg', ['^GIF8'] = 'gif', ['<svg[%s>]'] = 'svg',
}
local no_input = false

-- First passes: parse the HTML and TeX which pandoc's notebook reader leaves raw.

-- Without classes: a <div class="cell"> is none of the notebook's.
local function html(source, extensions)
  local read = pandoc.read(source, 'html' .. (extensions or ''))
  return read:walk { Div = function(el) return el.content end }.blocks
end

local function tex(source, otherwise)
  return source:match '^%s*\\begin{' and pandoc.Math('DisplayMath', source) or otherwise
end

local TAGS = {
  b = pandoc.Strong, strong = pandoc.Strong, i = pandoc.Emph, em = pandoc.Emph,
  sub = pandoc.Subscript, sup = pandoc.Superscript, u = pandoc.Underline,
  s = pandoc.Strikeout, del = pandoc.Strikeout,
  a = function(inlines, start) return pandoc.Link(inlines, start:match 'href%s*=%s*["\']([^"\']*)' or '') end,
}

-- Markdown's <b>text</b> is a list of inlines between two raw ones.
local function tags(inlines)
  for last, el in ipairs(inlines) do
    local name = el.t == 'RawInline' and el.text:match '^</(%w+)>$'
    for first = last - 1, TAGS[name or ''] and 1 or last, -1 do
      local start = inlines[first]
      if start.t == 'RawInline' and start.text:match('^<' .. name .. '[%s>]') then
        local inner = pandoc.Inlines { table.unpack(inlines, first + 1, last - 1) }
        local rest = pandoc.Inlines { table.unpack(inlines, last + 1) }
        local result = pandoc.Inlines { table.unpack(inlines, 1, first - 1) }
        result:insert(name == 'a' and TAGS.a(inner, start.text) or TAGS[name](inner))
        result:extend(rest)
        return tags(result)
      end
    end
  end
  return inlines
end

local parse = {
  Meta = function(meta)
    no_input = meta.jupyter and meta.jupyter.pyrlab_no_input
  end,
  RawBlock = function(el)
    if el.format == 'html' then
      return html(el.text)
    end
    -- anything but a formula is a raw cell for another format
    local formula = el.format == 'tex' and tex(el.text)
    return formula and pandoc.Para { formula } or {}
  end,
  RawInline = function(el)
    if el.format == 'html' then
      return pandoc.utils.blocks_to_inlines(html(el.text))
    end
    return el.format == 'tex' and tex(el.text, pandoc.Str(el.text)) or {}
  end,
}

-- Last pass: inlines.

local function key(anchor) -- JupyterLab's anchors differ from pandoc's in case and punctuation
  return 'to-' .. anchor:lower():gsub('[^%w]+', '-')
end

-- Returns the figure's bytes and kind; nothing if Typst cannot show it or it is on the network.
local function fetch(source)
  if source:match '^//' or (source:match '^%a[%w+.-]+:' and not source:match '^data:') then
    return
  end
  local ok, _, bytes = pcall(pandoc.mediabag.fetch, source)
  if not bytes then -- an attachment, whose name pandoc does not decode
    local name = source:gsub('%%(%x%x)', function(code) return string.char(tonumber(code, 16)) end)
    ok, _, bytes = pcall(pandoc.mediabag.fetch, name)
  end
  for signature, kind in pairs(SIGNATURES) do
    if ok and bytes and bytes:sub(1, 4096):find(signature) then
      return bytes, kind
    end
  end
end

local function image(el)
  local bytes, kind = fetch(el.src)
  if not bytes then
    local file = #el.src > 41 and el.src:gsub('^%x+%.', 'figure.') or el.src
    local name = #el.caption > 0 and el.caption or { pandoc.Str(file) }
    return pandoc.Emph { pandoc.Str '[image not available: ', pandoc.Span(name), pandoc.Str ']' }
  end
  el.src = pandoc.utils.sha1(bytes) .. '.' .. kind
  local file = assert(io.open(el.src, 'wb'))
  file:write(bytes)
  file:close()
  -- as wide as on the screen, but not wider than the text
  local asked = el.attributes.width or (el.attributes.style or ''):match '%f[%w]width:%s*([^;]+)' or ''
  local share = tonumber(asked:match '^([%d.]+)%%$')
  local wide = share and share / 100 * TEXT_WIDTH
    or tonumber(asked:match '^([%d.]+)p?x?$')
    or kind == 'png' and #bytes > 19 and string.unpack('>I4', bytes, 17)
    or kind == 'svg' and tonumber(bytes:match '<svg[^>]-%swidth="([%d.]+)p?x?"')
  if not wide then -- pandoc would give it the width that the file has, be it more than the page's
    return pandoc.RawInline('typst', '#box(image("' .. el.src .. '"))')
  end
  el.attributes = { width = math.min(100, wide / TEXT_WIDTH * 100) .. '%' }
  return el
end

local function link(el)
  local anchor = el.target:match '^#(.*)'
  if anchor then
    el.content:insert(1, pandoc.RawInline('typst', '#goto("' .. key(anchor) .. '")['))
    el.content:insert(pandoc.RawInline('typst', ']'))
    return el.content
  end
  -- a link to another file would lead nowhere from the PDF
  return (el.target:match '^https?:' or el.target:match '^mailto:') and el or el.content
end

local function formula(el)
  -- pandoc would set \bar too high, and knows no colours
  el.text = el.text:gsub('\\bar%f[%A]', '\\overline')
  el.text = el.text:gsub('\\color%s*{%w+}', ''):gsub('\\textcolor%s*{%w+}', '')
  local text = pandoc.write(pandoc.Pandoc { pandoc.Plain { el } }, 'typst')
  if not text:match '^%$' then -- pandoc does not know a command in it
    return pandoc.Code(el.text)
  end
  -- pandoc writes a determinant's bars and \ddot as Typst does not want them
  text = text:gsub('%s+$', ''):gsub('delim: "||"', 'delim: "|"')
  return pandoc.RawInline('typst', (text:gsub('(%w+)%^dot%.double', 'dot.double(%1)')))
end

-- Last pass: blocks.

local function bold(cell)
  return pandoc.Plain { pandoc.Strong(cell.content) }
end

local function tables(blocks, default)
  return blocks:walk {
    Table = function(el)
      for _, row in ipairs(el.head.rows) do
        for _, cell in ipairs(row.cells) do
          cell.contents = cell.contents:walk { Plain = bold }
        end
      end
      for _, column in ipairs(el.colspecs) do
        column[1] = column[1] == 'AlignDefault' and default or column[1]
      end
      return el
    end,
  }
end

local function code_cell(el)
  local code = el.content:remove(1) -- what follows is the output
  if code.text:match '%S' and not no_input then
    local language = (code.classes[1] or ''):lower() -- R is "r" for Typst
    local count = el.attributes.execution_count or ' '
    local keep = #el.content > 0 and 'true' or 'false' -- the code on its output's page
    return pandoc.Blocks {
      pandoc.RawBlock('typst', '#input("' .. count .. '", keep: ' .. keep .. ')['),
      pandoc.CodeBlock(code.text, { class = language }),
      pandoc.RawBlock('typst', ']'),
    } .. el.content
  end
  return el.content
end

local function output(el)
  local alarm = el.classes:includes 'stderr' or el.classes:includes 'error'
  local seen = el.classes:includes 'stream'
  local function see() seen = true end
  local blocks = el.content:walk {
    CodeBlock = function(block)
      see()
      if not block.text:match '%S' then
        return {}
      end
      block.classes = { alarm and 'stderr' or 'stdout' } -- the style knows these "languages"
      return block
    end,
    Table = see, Str = see, Image = see, RawInline = see, Code = see,
  }
  if not seen then
    return pandoc.CodeBlock('[This output is for a screen only]', { class = 'stdout' })
  end
  return tables(blocks, 'AlignRight') -- as pandas and R show their tables
end

local arrange = {
  Image = image,
  Link = link,
  Math = formula,
  Span = function(el) return el.content end,
  Header = function(el)
    el.identifier = key(pandoc.utils.stringify(el))
    return el
  end,
  Div = function(el)
    if el.classes:includes 'output' then
      return output(el)
    elseif el.classes:includes 'cell' then
      local content = el.classes:includes 'code' and code_cell(el) or tables(el.content, 'AlignLeft')
      content:insert(1, pandoc.RawBlock('typst', '// next cell 5f0b3c9e'))
      return content
    end
    return el.content
  end,
}

-- A cell's HTML is CommonMark's: after a blank line Markdown goes on. Its <img> may show an attachment.
local cells = {
  Div = function(el)
    if not (el.classes:includes 'cell' and el.classes:includes 'markdown') then
      return
    end
    local attachment = '%1' .. (el.identifier == '' and '' or el.identifier .. '-')
    local function raw(element)
      if element.format == 'html' then
        element.text = element.text:gsub('(src=["\']?)attachment:', attachment)
        if element.t == 'RawInline' then
          return element
        end
        local goes_on = element.text:find '\n%s*\n' and not element.text:find '<table'
        return goes_on and pandoc.read(element.text, 'gfm').blocks or html(element.text, '+tex_math_dollars')
      end
    end
    return el:walk { RawBlock = raw, RawInline = raw }
  end,
}

local markdown = {
  RawBlock = function(el)
    if el.format == 'markdown' then -- an output; a cell is read already
      return pandoc.read(el.text .. '\n', 'gfm').blocks
    end
  end,
}

return { markdown, cells, { Inlines = tags }, parse, arrange }

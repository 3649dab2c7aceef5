-- HTML and TeX in R Markdown, as knitr's for a figure of a given width, become what Typst can set, as in notebooks.
local notebook = dofile '/opt/venv/lib/pyrlab/pyrlab_pdf.lua'
for _, raw in ipairs { 'RawBlock', 'RawInline' } do
  local parse = notebook[4][raw]
  notebook[4][raw] = function(el)
    if el.format ~= 'typst' then
      return parse(el)
    end
  end
end

-- pandoc would leave %20 in a file's name, and give it the width that it has, be it more than the page's.
local function image(el)
  if el.src:match '^%a[%w+.-]+:' then
    return
  end
  el.src = el.src:gsub('%%(%x%x)', function(code) return string.char(tonumber(code, 16)) end)
  local sized = el.attributes.width or el.attributes.height
  return sized and el or pandoc.RawInline('typst', '#box(image("' .. el.src:gsub('["\\]', '\\%0') .. '"))')
end

return { notebook[3], notebook[4], { Image = image } }

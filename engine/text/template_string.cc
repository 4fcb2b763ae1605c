// SPDX-License-Identifier: Apache-2.0
#include "engine/text/template_string.h"

#include <algorithm>
#include <utility>

namespace millrace {

TemplateString::TemplateString(std::string text, TextOrigin origin) {
  if (text.empty()) return;
  auto rep = std::make_shared<Rep>();
  rep->text = std::move(text);
  rep->origin = origin;
  rep_ = std::move(rep);
}

std::vector<TextRun> TemplateString::runs() const {
  if (!rep_) return {};
  if (!rep_->mixed.empty()) return rep_->mixed;
  return {TextRun{rep_->text.size(), rep_->origin}};
}

bool TemplateString::is_all(TextOrigin origin) const {
  return !rep_ || (rep_->mixed.empty() && rep_->origin == origin);
}

TemplateString TemplateString::Slice(size_t begin, size_t end) const {
  if (begin == 0 && end == size_bytes()) return *this;
  TemplateStringBuilder builder;
  builder.AppendSlice(*this, begin, end);
  return builder.Build();
}

TemplateString TemplateString::AsData() const {
  if (is_all(TextOrigin::kData)) return *this;
  return TemplateString(rep_->text, TextOrigin::kData);
}

TemplateString TemplateString::AsMarkup() const {
  auto rep = rep_ ? std::make_shared<Rep>(*rep_) : std::make_shared<Rep>();
  rep->is_markup = true;
  TemplateString result;
  result.rep_ = std::move(rep);
  return result;
}

void TemplateStringBuilder::Extend(TextOrigin origin) {
  if (runs_.empty() || runs_.back().origin != origin) {
    runs_.push_back(TextRun{text_.size(), origin});
  } else {
    runs_.back().end = text_.size();
  }
}

void TemplateStringBuilder::Append(std::string_view text, TextOrigin origin) {
  if (text.empty()) return;
  text_.append(text);
  Extend(origin);
}

void TemplateStringBuilder::AppendSlice(const TemplateString& text, size_t begin, size_t end) {
  if (begin >= end) return;
  const TemplateString::Rep& rep = *text.rep_;
  const std::string_view view = rep.text;
  if (rep.mixed.empty()) {
    Append(view.substr(begin, end - begin), rep.origin);
    return;
  }
  auto run = std::upper_bound(rep.mixed.begin(), rep.mixed.end(), begin,
                              [](size_t position, const TextRun& candidate) { return position < candidate.end; });
  for (size_t at = begin; at < end; ++run) {
    const size_t stop = std::min(run->end, end);
    Append(view.substr(at, stop - at), run->origin);
    at = stop;
  }
}

TemplateString TemplateStringBuilder::Build() {
  TemplateString result;
  if (!text_.empty()) {
    auto rep = std::make_shared<TemplateString::Rep>();
    rep->text = std::move(text_);
    if (runs_.size() == 1) {
      rep->origin = runs_[0].origin;
    } else {
      rep->mixed = std::move(runs_);
    }
    result.rep_ = std::move(rep);
  }
  text_.clear();
  runs_.clear();
  return result;
}

}  // namespace millrace

# SPDX-License-Identifier: Apache-2.0
# Writes OUTPUT, a C++ source with the texts of the page: cmake -D OUTPUT=... -D FOLDER=... -P embed.cmake
set(source "#include \"server/console/console.h\"\nnamespace millrace {\n")
foreach(name index.html console.css console.js)
  file(READ ${FOLDER}/${name} text)
  string(MAKE_C_IDENTIFIER ${name} identifier)
  string(APPEND source "const std::string_view kConsole_${identifier} = R\"embedded(${text})embedded\";\n")
endforeach()
file(WRITE ${OUTPUT} "${source}}  // namespace millrace\n")
